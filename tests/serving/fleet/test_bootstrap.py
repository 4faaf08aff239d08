"""A serving host's wanted facts, the host's side of making them, its pin and its wheelhouse."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf import compose
from conf.errors import ConfigError
from conf.schema import from_config
from conf.site_schema import site_config
from serving.fleet.bootstrap import host_side, units
from serving.fleet.bootstrap.changes import HostChange, host_changes, restarts_triton
from serving.fleet.bootstrap.facts import (
    HostEnvironment,
    HostFact,
    HostFile,
    HostFolder,
    HostInterpreter,
    HostTree,
    HostUnit,
    fact_values,
)
from serving.fleet.bootstrap.fetch_keys import ensure_fetch_key, peers_of
from serving.fleet.bootstrap.host_pin import fingerprint, known_hosts_line, pin
from serving.fleet.bootstrap.layout import BootstrapSettings, HostLayout, host_layout
from serving.fleet.bootstrap.serving_host import HostTrust, serving_host, sshd_options
from serving.fleet.bootstrap.wheelhouse import Wheelhouse, read_wheelhouse
from serving.fleet.errors import FleetConfigError, FleetRefusal
from serving.fleet.inventory import Host, fleet_from
from tests.serving.fleet.bed import free_port, make_key, wait_for
from tests.serving.fleet.machine_checks import (
    check_hardened,
    check_made_in_order,
    sshd_config,
    sshd_options_of,
)

ME = (pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name)
TRUST = HostTrust("ssh-ed25519 AAAA deploy", "release@lockgate ssh-ed25519 AAAA\n", "private", "{}")
NO_WHEELS = Wheelhouse(Path("/nowhere"), "# none\n", "0" * 64)


def settings(*overrides: str) -> BootstrapSettings:
    config = compose("bootstrap", list(overrides))
    return from_config(BootstrapSettings, config.bootstrap, "bootstrap")


def layout(*overrides: str) -> HostLayout:
    site = site_config(compose("bootstrap", list(overrides)))
    return host_layout(site, settings(*overrides), "use1-a")


def facts() -> list[HostFact]:
    return serving_host(layout(), TRUST, NO_WHEELS)


def made(fact: HostFact) -> dict[str, str]:
    return host_side.answer("make", fact_values(fact))


def difference(fact: HostFact) -> dict[str, str]:
    return host_side.answer("compare", fact_values(fact))


def test_a_host_that_is_as_wanted_needs_no_change() -> None:
    wanted = facts()
    assert host_changes(wanted, [""] * len(wanted)) == []


def test_a_changed_file_restarts_the_units_that_read_it_and_no_other() -> None:
    wanted = facts()
    settings_file = "/srv/lockgate/etc/host.json"
    found = ["content" if getattr(f, "path", "") == settings_file else "" for f in wanted]
    changes = host_changes(wanted, found)
    assert [change.fact.title for change in changes] == [
        f"file {settings_file}", f"unit {units.WATCH}",
        f"unit {units.AGENT}", f"unit {units.TRITON}"
    ]  # fmt: skip
    assert restarts_triton(changes) == f"restart after {settings_file}"


def test_the_first_start_of_triton_is_no_restart() -> None:
    change = HostChange(HostUnit(units.TRITON, ()), "not-found")
    assert restarts_triton([change]) == ""


def test_every_parent_and_every_file_of_a_unit_is_made_before_it() -> None:
    """The order of the facts is the order in which a bare host gets them."""
    there = {"/", "/srv", "/etc/ssh/sshd_config.d", "/etc/systemd/system", "/etc/systemd"}
    check_made_in_order(facts(), there)


def test_what_a_deployment_may_not_write_is_roots() -> None:
    wanted = [f for f in facts() if isinstance(f, HostFile | HostFolder)]
    own = {f.path.removeprefix("/srv/lockgate") for f in wanted if f.owner != "root"}
    assert own == {
        "/model-repository", "/packages", "/state", "/staging", "/run/triton", "/watch",
        "/etc/fetch_key",
    }  # fmt: skip


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_every_service_is_hardened(tmp_path: Path) -> None:
    for name, text in units.unit_texts(layout()).items():
        if name.endswith(".service"):
            check_hardened(tmp_path / name.replace("@", ""), text)


def test_triton_gets_the_devices_that_are_named_and_no_other() -> None:
    text = units.unit_texts(layout("bootstrap.devices=[/dev/nvidia0]"))[units.TRITON]
    assert "DeviceAllow=/dev/nvidia0 rw" in text and "PrivateDevices=yes" not in text
    assert "PrivateDevices=yes" in units.unit_texts(layout())[units.TRITON]


def test_a_root_that_a_unit_cannot_carry_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot carry"):
        settings("bootstrap.root='/srv/lock gate'")


def test_sshd_takes_the_options_for_its_two_accounts_only(tmp_path: Path) -> None:
    config = sshd_config(tmp_path, sshd_options(layout()))

    def options(user: str) -> dict[str, str]:
        return sshd_options_of(config, user)

    assert options("lg-verify")["permitopen"] == "127.0.0.11:18000"
    assert options("lg-verify")["allowtcpforwarding"] == "local"
    assert options("lg-host")["allowtcpforwarding"] == "no"
    assert options("lg-host")["authorizedkeysfile"].endswith("authorized_keys.staging")
    for user in ("lg-verify", "lg-host"):
        assert (
            options(user)["permittty"] == "no" and options(user)["passwordauthentication"] == "no"
        )
    assert options("anna")["permittty"] == "yes"


@given(text=st.text(), mode=st.sampled_from([0o600, 0o644, 0o755]))
def test_a_file_once_made_has_no_difference(tmp_path_factory, text: str, mode: int) -> None:
    path = tmp_path_factory.mktemp("file") / "one"
    fact = HostFile(str(path), text, *ME, mode)
    assert difference(fact) == {"text": "missing"}
    assert made(fact) == {"text": ""} == difference(fact)
    path.write_bytes(b"other")
    path.chmod(0o640)
    assert difference(fact)["text"]
    assert made(fact) == {"text": ""} == difference(fact)


def test_a_file_that_its_check_refuses_is_put_back(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_text("good")
    check = ("grep", "-q", "good", str(path))
    answer = made(HostFile(str(path), "bad", *ME, check=check))
    assert answer["fault"].startswith("it was put back as it was") and path.read_text() == "good"
    new = tmp_path / "two"
    assert "fault" in made(HostFile(str(new), "bad", *ME, check=("false",)))
    assert not new.exists() and sorted(p.name for p in tmp_path.iterdir()) == ["one"]


def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("target")
    fact = HostFolder(str(tmp_path / "link"), *ME, 0o777)
    assert "is not a folder" in made(fact)["fault"]
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the tree is root's")
def test_a_tree_is_replaced_as_one(tmp_path: Path) -> None:
    fact = HostTree(str(tmp_path / "host"), {"a.py": "1", "b/c.py": "2"})
    assert made(fact) == {"text": ""}
    (tmp_path / "host/b/extra.py").write_text("x")
    (tmp_path / "host/a.py").write_text("changed")
    (tmp_path / ".host.new").mkdir()  # of one that was killed
    assert difference(fact) == {"text": "2 files"}
    assert made(fact) == {"text": ""}
    assert [p.name for p in tmp_path.iterdir()] == ["host"]


def test_an_environment_without_its_stamp_counts_as_none(tmp_path: Path) -> None:
    """One whose install was killed is made again from nothing."""
    fact = HostEnvironment(str(tmp_path / "env"), str(tmp_path), "", "0" * 64, ())
    (tmp_path / "env-000000000000").mkdir()
    assert difference(fact) == {"text": "missing"}
    (tmp_path / "env").symlink_to("env-000000000000")
    assert difference(fact) == {"text": "incomplete"}
    (tmp_path / "env-000000000000/.complete").touch()
    assert difference(fact) == {"text": ""}
    assert difference(replace(fact, digest="1" * 64)) == {"text": "is env-000000000000"}


def test_another_python_is_named_with_the_remedy() -> None:
    answer = made(HostInterpreter("2.7"))
    assert "the wheels are for 2.7" in answer["fault"] and "fab wheelhouse" in answer["fault"]


def test_a_wheelhouse_that_is_missing_or_of_another_lock_is_refused(tmp_path: Path) -> None:
    wanted = settings(f"bootstrap.wheelhouse={tmp_path}")
    with pytest.raises(FleetConfigError, match="fab wheelhouse"):
        read_wheelhouse(wanted)
    (tmp_path / "requirements.txt").write_text("# python 3.11, serve.txt sha256:0\n")
    with pytest.raises(FleetConfigError, match=r"another serve\.txt"):
        read_wheelhouse(wanted)


def test_a_host_is_pinned_by_its_fingerprint_and_never_by_its_answer_alone(tmp_path: Path) -> None:
    public, port = make_key(tmp_path / "host"), free_port()
    config = tmp_path / "sshd_config"
    config.write_text(f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\n"
                      f"PidFile none\nUsePAM no\nStrictModes no\n")  # fmt: skip
    Path("/run/sshd").mkdir(exist_ok=True)
    daemon = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", str(config)])
    known, host = tmp_path / "known_hosts", Host("h", "127.0.0.1", "us-east", 18000)
    try:
        wait_for(lambda: _greets(port), 10)
        with pytest.raises(FleetRefusal, match="Nothing was pinned"):
            pin(host, port, known, f"SHA256:{'A' * 43}", 5)
        assert not known.exists()
        with pytest.raises(FleetConfigError, match="own console"):
            pin(host, port, known, "yes", 5)
        assert "is pinned in" in pin(host, port, known, fingerprint(public), 5)
        assert "already" in pin(host, port, known, fingerprint(public), 5)
        make_key(tmp_path / "other")
        other = (tmp_path / "other.pub").read_text().split()[1]
        known.write_text(f"[127.0.0.1]:{port} ssh-ed25519 {other}\n")
        with pytest.raises(FleetRefusal, match="ssh-keygen -R"):
            pin(host, port, known, fingerprint(public), 5)
    finally:
        daemon.terminate()
        daemon.wait(10)


def _greets(port: int) -> bool:
    import socket

    with socket.create_connection(("127.0.0.1", port), 1) as connection:
        return connection.recv(4) == b"SSH-"


def test_a_fetch_key_is_made_once_also_by_two_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = {*pool.map(lambda _: ensure_fetch_key(tmp_path, "h1"), range(4))}
    assert len(found) == 1 and [path.name for path in tmp_path.iterdir()] == ["h1"]
    (key,) = found
    assert key.public.startswith("ssh-ed25519 ") and "PRIVATE KEY" in key.private
    assert (tmp_path / "h1").stat().st_mode & 0o777 == 0o600


def test_a_host_knows_the_pinned_hosts_of_its_region_and_no_other(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    keys = {name: make_key(tmp_path / name) for name in ("use1-b", "usw2-a")}
    known.write_text(
        "".join(
            known_hosts_line(name, address, 2222, keys[name])
            for name, address in (("use1-b", "127.0.0.12"), ("usw2-a", "127.0.0.13"))
        )
    )
    fleet = fleet_from(compose("bootstrap", [f"site.paths.known_hosts={known}"]))
    peers = json.loads(peers_of(fleet, fleet.host("use1-a"), tmp_path / "fetch"))
    assert peers == {
        "use1-b": {
            "address": "127.0.0.12",
            "port": 2222,
            "host_key": " ".join(keys["use1-b"].split()[:2]),
            "fetch_key": ensure_fetch_key(tmp_path / "fetch", "use1-b").public,
        }
    }
