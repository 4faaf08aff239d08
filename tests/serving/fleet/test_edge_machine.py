"""An edge's own machine: its wanted facts, its units, and the sites that cannot have one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from conf import compose
from conf.schema import from_config
from conf.site_schema import Site, site_config
from serving.fleet.bootstrap import host_side
from serving.fleet.bootstrap.changes import host_changes
from serving.fleet.bootstrap.edge_layout import EdgeLayout, edge_layout
from serving.fleet.bootstrap.edge_machine import edge_machine, edge_sshd_options
from serving.fleet.bootstrap.edge_units import EDGE, EDGE_LOG, edge_unit_texts
from serving.fleet.bootstrap.facts import (
    HostFact,
    HostFile,
    HostFirstFile,
    HostFolder,
    fact_values,
)
from serving.fleet.bootstrap.layout import BootstrapSettings
from serving.fleet.cli.bootstrap import machine, setup
from serving.fleet.errors import FleetConfigError
from serving.fleet.haproxy.request_rules import BUFFER_ENVIRONMENT
from serving.fleet.haproxy.server_states import FIRST_FILES
from tests.serving.fleet.machine_checks import (
    check_hardened,
    check_made_in_order,
    sshd_config,
    sshd_options_of,
)
from tests.serving.fleet.test_bootstrap import ME

EDGES_S = (0.1, 0.3, 1.0)
SSH = "{address: 10.0.0.7, port: 22, user: lockgate-edge, etc: /etc/lockgate-edge}"
OWN_MACHINE = (
    f"+site.edges.us-east.ssh={SSH}",
    "site.edges.us-east.address=10.0.0.7",
    "site.edges.us-east.socket=/run/lockgate-edge/us-east.sock",
    "site.edges.us-east.state=/srv/lockgate/edges/us-east",
    "site.paths.edge_log=/srv/lockgate/run/edge-log/edges.sock",
)


def site_and_settings(*overrides: str) -> tuple[Site, BootstrapSettings]:
    config = compose("bootstrap", [*OWN_MACHINE, *overrides])
    return site_config(config), from_config(BootstrapSettings, config.bootstrap, "bootstrap")


def layout(*overrides: str) -> EdgeLayout:
    return edge_layout(*site_and_settings(*overrides), "us-east", EDGES_S)


def facts(*overrides: str) -> list[HostFact]:
    return edge_machine(layout(*overrides), "ssh-ed25519 AAAA deploy", "0" * 64)


def test_every_parent_and_every_file_of_a_unit_is_made_before_it() -> None:
    """The order of the facts is the order in which a bare machine gets them."""
    system = ("/", "/etc", "/srv", "/etc/ssh/sshd_config.d", "/etc/systemd/system", "/etc/systemd")
    check_made_in_order(facts(), {*system, "/usr/sbin/haproxy"})


def test_what_a_rollout_may_not_write_is_roots() -> None:
    wanted = [f for f in facts() if isinstance(f, HostFile | HostFolder | HostFirstFile)]
    own = {f.path.removeprefix("/srv/lockgate") for f in wanted if f.owner != "root"}
    state = "/edges/us-east"
    assert own == {
        "/edge", "/edge/haproxy.cfg", "/run/edge-log", state,
        *(f"{state}/{name}" for name in FIRST_FILES),
    }  # fmt: skip


def test_the_map_the_states_and_the_config_are_made_once_and_then_left(tmp_path: Path) -> None:
    path = tmp_path / "routes.map"
    fact = fact_values(HostFirstFile(str(path), "", *ME))
    assert host_side.answer("compare", fact) == {"text": "missing"}
    assert host_side.answer("make", fact) == {"text": ""}
    path.write_text("toy 7:8:2500\n")
    assert host_side.answer("make", fact) == {"text": ""}
    assert path.read_text() == "toy 7:8:2500\n"
    refused = HostFirstFile(str(tmp_path / "cfg"), "x", *ME, check=("false",))
    assert "fault" in host_side.answer("make", fact_values(refused))
    assert not (tmp_path / "cfg").exists()


def test_a_changed_lua_file_reloads_haproxy_and_restarts_nothing() -> None:
    wanted = facts()
    lua = "/etc/lockgate-edge/kserve_check.lua"
    found = ["content" if getattr(fact, "path", "") == lua else "" for fact in wanted]
    changes = host_changes(wanted, found)
    assert [str(change) for change in changes] == [
        f"file {lua}: content", f"unit {EDGE}: reload after {lua}"
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("overrides", [(), ("site.edges.us-east.http_port=80",)])
def test_every_service_is_hardened(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    for name, text in edge_unit_texts(layout(*overrides)).items():
        check_hardened(tmp_path / name, text)


def test_the_request_log_is_read_by_the_edges_account_where_haproxy_alone_writes() -> None:
    (folder,) = [one for one in facts() if getattr(one, "path", "").endswith("/run/edge-log")]
    assert folder == HostFolder("/srv/lockgate/run/edge-log", "lockgate-edge", "haproxy", 0o2710)
    text = edge_unit_texts(layout())[EDGE_LOG]
    (start,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    words = start.split()
    assert words[0] == "ExecStart=/usr/bin/python3" and "/etc/lockgate-edge/edge-log" in words
    assert words[words.index("--socket") + 1] == "/srv/lockgate/run/edge-log/edges.sock"
    assert words[words.index("--address") + 1 :][:1] == ["10.0.0.7"]
    assert words[words.index("--latency-edges-s") + 1 :] == ["0.1", "0.3", "1"]
    assert "ReadWritePaths=/srv/lockgate/run/edge-log" in text and "User=lockgate-edge" in text


def test_haproxy_may_bind_a_low_port_only_where_it_has_one() -> None:
    for key, value in BUFFER_ENVIRONMENT.items():
        assert f'Environment="{key}={value}"\n' in edge_unit_texts(layout())[EDGE]
    assert "CAP_NET_BIND" not in edge_unit_texts(layout())[EDGE]
    low = edge_unit_texts(layout("site.edges.us-east.http_port=80"))[EDGE]
    assert low.count("=CAP_NET_BIND_SERVICE") == 2


def test_sshd_gives_the_edges_account_one_command_and_no_forward(tmp_path: Path) -> None:
    config = sshd_config(tmp_path, edge_sshd_options(layout()))
    own = sshd_options_of(config, "lockgate-edge")
    assert own["authorizedkeysfile"] == "/etc/lockgate-edge/authorized_keys"
    assert (own["allowtcpforwarding"], own["permitopen"], own["permittty"]) == ("no", "none", "no")
    assert sshd_options_of(config, "anna")["permittty"] == "yes"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ssh": None}, "has no machine of its own"),
        ({"socket": Path("/srv/edge.sock")}, "folder of /run that its unit makes"),
    ],
)
def test_an_edge_that_cannot_be_made_is_refused(change: dict[str, object], message: str) -> None:
    site, settings = site_and_settings()
    edge = replace(site.edges["us-east"], **change)  # type: ignore[arg-type]
    with pytest.raises(FleetConfigError, match=message):
        edge_layout(
            replace(site, edges={**site.edges, "us-east": edge}), settings, "us-east", EDGES_S
        )


@pytest.mark.parametrize("path", ["/tmp/x/edges.sock", "/var/tmp/edges.sock"])
def test_a_log_that_its_reader_would_not_see_is_refused(path: str) -> None:
    with pytest.raises(FleetConfigError, match="a /tmp of its own"):
        layout(f"site.paths.edge_log={path}")


def test_two_edges_of_one_machine_are_refused() -> None:
    site, settings = site_and_settings()
    west = replace(site.edges["us-west"], ssh=site.edges["us-east"].ssh)
    with pytest.raises(FleetConfigError, match="us-east and us-west have one machine"):
        edge_layout(
            replace(site, edges={**site.edges, "us-west": west}), settings, "us-east", EDGES_S
        )


def test_a_machine_is_found_by_the_name_of_its_edge_too() -> None:
    on = setup(compose("bootstrap", list(OWN_MACHINE)))
    found = machine(on, "us-east")
    assert (found.address, on.fleet.ssh_of(found).user) == ("10.0.0.7", "lockgate-edge")
    assert machine(on, "use1-a").address == "127.0.0.11"
    with pytest.raises(FleetConfigError, match="Nearest: us-east"):
        machine(on, "us-eas")
    with pytest.raises(FleetConfigError, match="no edge on a machine of its own"):
        machine(on, "us-west")
