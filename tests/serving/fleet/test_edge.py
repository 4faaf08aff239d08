"""The edge: its config as text, its runtime commands to the letter, what it says read right."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conf import LockgateError, compose
from conf.site_daemons import EdgeSettings
from conf.site_schema import site_config
from serving.fleet.haproxy import edge
from serving.fleet.haproxy.edge_config import (
    INFER_PATHS,
    READ_PATHS,
    edge_config_diff,
    haproxy_cfg,
    validator_at,
)
from serving.fleet.haproxy.edge_group import at_all, set_at_all
from serving.fleet.haproxy.edge_link import EdgeError, LocalEdge
from serving.fleet.haproxy.server_states import parse_states
from tests.serving.fleet.bed import make_state


def site(state="/run/edges", **changes):
    config = compose("site")
    OmegaConf.set_struct(config, False)
    config.site.hosts = {
        "a": {"address": "127.0.0.11", "region": "us-east"},
        "b": {"address": "127.0.0.12", "region": "us-east"},
        "w": {"address": "127.0.0.13", "region": "us-west"},
    }
    config.site.edges = {
        name: {"address": "127.0.0.1", "http_port": 18080 + n, "stats_port": 18404 + n,
               "grpc_port": 18090 + n, "socket": f"/run/{name}.sock", "state": state,
               "region": "us-east" if name == "second" else ""}
        for n, name in enumerate(("us-east", "us-west", "us-empty", "second"))
    }  # fmt: skip
    config.site.groups.edge = "root"
    config.site = OmegaConf.merge(config.site, changes)
    return site_config(config)


def servers(text, backend):
    """(name, target, stands in) of the servers of a backend."""
    lines = text.split(f"\nbackend {backend}\n")[1].split("\nbackend ")[0]
    found = re.findall(r"^  server (\S+) (\S+) (?:.*)$", lines, re.MULTILINE)
    return [
        (n, t, f"server {n} " in lines and bool(re.search(rf"server {n} .* backup$", lines, re.M)))
        for n, t in found
    ]


def test_a_region_has_its_own_hosts_and_those_of_others_behind_them():
    text = haproxy_cfg(site(), "us-east")
    own = [("a", "127.0.0.11:18000", False), ("b", "127.0.0.12:18000", False)]
    assert servers(text, "triton") == [*own, ("w", "127.0.0.13:18000", True)]
    assert servers(text, "triton_last") == own
    alone = haproxy_cfg(site(edge={"backup_regions": False}), "us-east")
    assert servers(alone, "triton") == own
    assert "stats socket /run/us-east.sock group root mode 660 level admin" in text
    assert "/v2/health/live" in text and "/v2/health/ready\n" not in text


def test_a_region_may_have_several_edges_each_in_front_of_all_its_hosts():
    first, second = haproxy_cfg(site(), "us-east"), haproxy_cfg(site(), "second")
    for backend in ("triton", "triton_last", "triton_grpc"):
        assert servers(first, backend) == servers(second, backend)
    assert "bind 127.0.0.1:18083" in second and "stats socket /run/second.sock" in second
    assert '{"region":"us-east",' in second


def test_a_post_that_may_have_run_is_never_sent_again():
    lines = haproxy_cfg(site(), "us-east").splitlines()
    tried = {tuple(line.split()[1:]) for line in lines if "retry-on" in line}
    # By gRPC 503 is the answer of a host's door that could not connect to its Triton.
    assert tried == {("conn-failure",), ("conn-failure", "503")}


@pytest.mark.parametrize(
    ("region", "sentence"),
    [("us-north", "no edge 'us-north'"), ("us-empty", "no host")],
)
def test_a_region_that_cannot_be_is_refused(region, sentence):
    with pytest.raises(ValueError, match=sentence):
        haproxy_cfg(site(), region)


def test_a_host_address_cannot_smuggle_configuration():
    with pytest.raises(LockgateError, match="neither an IP address"):
        haproxy_cfg(site(hosts={"a": {"address": "127.0.0.11\n  bind *:1"}}), "us-east")


def test_settings_of_the_site_reach_the_config():
    text = haproxy_cfg(
        site(
            edge={
                "check_interval_ms": 250, "max_connections_per_host": 7, "error_limit": 9,
                "agent_interval_ms": 333,
            }
        ),
        "us-east",
    )  # fmt: skip
    assert (
        "check inter 250ms fall 2 rise 2 observe layer7 error-limit 9 on-error mark-down "
        "agent-check agent-port 18004 agent-inter 333ms maxconn 7\n"
    ) in text


def test_the_difference_of_a_config_is_lines_of_it():
    etc = validator_at(Path("/etc/x"))
    now = haproxy_cfg(site(), "us-east", etc)
    assert edge_config_diff(site(), "us-east", now, etc) == []
    changed = edge_config_diff(site(edge={"max_queue": 77}), "us-east", now, etc)
    removed = [line for line in changed if line.startswith("-")]
    added = [line for line in changed if line.startswith("+")]
    assert len(removed) == len(added) == 2  # HTTP and gRPC
    assert all("ge 77 }" in line for line in added) and all("ge 256 }" in line for line in removed)


@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
def test_haproxy_accepts_the_config(tmp_path):
    path = tmp_path / "haproxy.cfg"
    make_state(tmp_path)
    path.write_text(haproxy_cfg(site(str(tmp_path)), "us-west"))
    done = subprocess.run(["haproxy", "-c", "-f", str(path)], capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("path", "infer", "read"),
    [
        ("/v2/models/flights/infer", True, False),
        ("/v2/models/flights/versions/12/infer", True, False),
        ("/v2/models/flights/versions/12/ready", False, True),
        ("/v2/models/flights", False, True),
        ("/v2/models/flights/versions/3", False, True),
        ("/v2/health/live", False, True),
        ("/v2/repository/models/flights/load", False, False),
        ("/v2/repository/index", False, False),
        ("/v2/models/flights/config", False, False),
        ("/v2/models/flights/stats", False, False),
        ("/v2/models/stats", False, False),
        ("/v2/models/stats/infer", False, False),
        ("/v2/models/stats/ready", False, False),
        ("/v2/models/statson/infer", True, False),
        ("/v2/models/flights/trace/setting", False, False),
        ("/v2/systemsharedmemory/status", False, False),
        ("/v2/models/../infer", False, False),
        ("/v2/models/flights/infer/../../../repository/index", False, False),
        ("/v2/models/%2e%2e/infer", False, False),
        ("/v2/models/flights/versions/x/infer", False, False),
        ("//v2/models/flights/infer", False, False),
        ("/v2/models/flights/infer\n", False, False),
    ],
)
def test_what_passes_the_edge(path, infer, read):
    # HAProxy's regexes have no multi-line mode: `$` is the very end there.
    assert bool(re.match(INFER_PATHS.replace("$", r"\Z"), path)) is infer
    assert bool(re.match(READ_PATHS.replace("$", r"\Z"), path)) is read


def test_commands_to_the_letter():
    for state in ("drain", "maint"):
        assert edge.set_state("use1-a", state) == (
            f"disable agent triton/use1-a; set server triton/use1-a state {state}"
        )
    assert edge.set_state("use1-a", "ready", "triton_last") == (
        "enable agent triton_last/use1-a; set server triton_last/use1-a agent up; "
        "set server triton_last/use1-a state ready"
    )
    with pytest.raises(ValueError, match="unknown edge state"):
        edge.set_state("use1-a", "down")


SERVERS = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight
3 triton 1 a 127.0.0.11 2 0 1
3 triton 2 b 127.0.0.12 2 8 1
3 triton 3 c 127.0.0.13 0 1 1
3 triton 4 d 127.0.0.14 0 0 1
"""
STAT = """\
# pxname,svname,qcur,scur,stot,econ,eresp,hrsp_5xx
triton,a,0,3,100,1,2,4
triton,b,1,0,50,0,0,0
triton,BACKEND,0,3,150,1,2,4
"""


def test_states_and_counters_are_joined():
    states = parse_states(SERVERS, STAT, "triton")
    assert {n: (s.admin, s.up, s.takes_traffic) for n, s in states.items()} == {
        "a": ("ready", True, True),
        "b": ("drain", True, False),
        "c": ("maint", False, False),
        "d": ("ready", False, False),
    }
    assert (states["a"].sessions, states["a"].requests, states["a"].errors) == (3, 100, 7)
    assert states["b"].queued == 1


def test_a_host_is_not_blamed_for_its_clients_mistakes():
    """Only 5xx, failed connections and broken answers count against a host that is watched."""
    stat = (
        "# pxname,svname,qcur,scur,stot,econ,eresp,cli_abrt,hrsp_4xx,hrsp_5xx\n"
        "triton,a,0,0,300,0,0,40,200,0\ntriton,b,0,0,300,1,2,40,200,3\n"
    )
    states = parse_states(SERVERS, stat, "triton")
    assert (states["a"].errors, states["b"].errors) == (0, 6)


def test_limits_of_the_site_reach_the_config():
    changed = {
        "max_queue": 11, "max_body_bytes": 1 << 20, "max_header_bytes": 4096,
        "max_connections_per_source": 12, "max_in_flight_per_source": 13,
        "max_requests_per_second_per_source": 14, "body_timeout_ms": 1234, "max_connections": 15,
    }  # fmt: skip
    text = haproxy_cfg(site(edge=changed), "us-east")
    for line in (
        "  maxconn 15\n", "{ queue(triton) ge 11 }", "{ req.body_size gt 1048576 }",
        "{ req.hdrs,length gt 4096 }", "reject if { sc0_conn_cur gt 12 }", "sc1_conn_cur gt 13",
        "sc0_http_req_rate gt 14", "wait-for-body time 1234ms",
    ):  # fmt: skip
        assert line in text


def test_a_body_that_no_memory_holds_is_refused():
    settings = dict(compose("site").site.edge) | {"max_body_bytes": (64 << 20) + 1}
    with pytest.raises(ValueError, match=r"max_body_bytes=67108865: 67108864 at most"):
        EdgeSettings(**settings)


def test_an_edge_that_is_not_there_is_a_sentence(tmp_path):
    link = LocalEdge("us-east", tmp_path / "none.sock", tmp_path)
    with pytest.raises(EdgeError, match=r"us-east does not answer on .*Is HAProxy up"):
        edge.Edge("us-east", link).query("show stat")


class FlakyEdge(LocalEdge):
    def query(self, command):
        raise EdgeError(f"{self.name} is away")


def test_an_edge_that_is_away_holds_up_no_other(tmp_path):
    away = [edge.Edge(name, FlakyEdge(name, tmp_path, tmp_path)) for name in ("one", "two")]
    failures = set_at_all(away, "a", edge.DRAIN)
    assert {name: str(error) for name, error in failures.items()} == {
        "one": "one is away", "two": "two is away",
    }  # fmt: skip
    done = []
    assert (
        at_all([*away, edge.Edge("three", away[0].link)], lambda one: done.append(one.name)) == {}
    )
    assert sorted(done) == ["one", "three", "two"]
    assert set_at_all([], "a", edge.DRAIN) == {}
