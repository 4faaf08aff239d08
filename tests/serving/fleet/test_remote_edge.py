"""An edge on a machine of its own: a real sshd, the edge's program behind it, a real HAProxy."""

from __future__ import annotations

import getpass
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.request import urlopen

import pytest
from omegaconf import OmegaConf

from conf import compose
from conf.site_schema import Site, SiteEdgeSsh
from serving.edge_host.installation import (
    edge_files,
    edge_json,
    edge_key,
    edge_log_command,
    edge_log_files,
)
from serving.edge_host.machine import EdgeHome
from serving.edge_host.names import ROUTES, STATES
from serving.edge_host.requests import EdgeHostRefusal, parse_edge_request
from serving.fleet.bootstrap.host_pin import known_hosts_line
from serving.fleet.cli.edge_configs import changed_lines, edge_lines, plan_lines
from serving.fleet.errors import FleetError
from serving.fleet.haproxy.edge import DRAIN, MAINT, READY, Edge
from serving.fleet.haproxy.edge_config import haproxy_cfg, validator_at
from serving.fleet.haproxy.edge_link import EdgeError, EdgeUnreachable
from serving.fleet.haproxy.request_rules import VALIDATOR
from serving.fleet.inventory import FleetEdge, Ssh, fleet_from
from serving.fleet.routing import Routing
from serving.fleet.ssh.edge_rollout import edge_change, roll_edge
from serving.fleet.ssh.remote_edge import RemoteEdge, edge_of
from tests.serving.fleet.bed import REPO, free_port, make_key
from tests.serving.fleet.edge_bed import REGION
from tests.serving.fleet.edge_hosts import HostsBed, running_hosts, until

pytestmark = pytest.mark.skipif(
    not (shutil.which("haproxy") and Path("/usr/sbin/sshd").exists()),
    reason="haproxy or sshd is not installed",
)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostsBed]:
    with running_hosts(tmp_path_factory.mktemp("edge")) as made:
        yield made


def install(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(scope="module")
def place(bed: HostsBed) -> Iterator[FleetEdge]:
    """The edge's machine: root's files, and sshd with the deploy key's one command."""
    folder, port = bed.folder, free_port()
    etc = folder / "etc"
    install(etc / "edge", edge_files())
    home = EdgeHome(
        haproxy="/usr/sbin/haproxy", config=folder / "haproxy.cfg", state=folder,
        socket=folder / "s.sock", master=folder / "master.sock",
    )  # fmt: skip
    (etc / "edge.json").write_text(edge_json(home))
    deploy, host_key = make_key(folder / "deploy"), make_key(folder / "host_key")
    noisy = edge_key(etc, deploy).replace('command="', 'command="echo lockgate-answer 0 {}; ')
    (etc / "authorized_keys").write_text(noisy)
    (folder / "known_hosts").write_text(known_hosts_line(REGION, "127.0.0.1", port, host_key))
    (etc / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {etc}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin forced-commands-only\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    ssh = Ssh(
        user=getpass.getuser(), transfer_user="", port=port, key=folder / "deploy",
        known_hosts=folder / "known_hosts", connect_timeout_s=5, command_timeout_s=30,
    )  # fmt: skip
    argv = ["/usr/sbin/sshd", "-D", "-e", "-f", str(etc / "sshd_config")]
    with (folder / "sshd.log").open("wb") as log, subprocess.Popen(argv, stderr=log) as sshd:
        place = FleetEdge(REGION, REGION, "http://", folder / "s.sock", folder, "127.0.0.1", ssh)
        until(lambda: bool(edge_of(place).states()))
        yield place
        sshd.terminate()


@pytest.fixture
def edge(place: FleetEdge, bed: HostsBed) -> Iterator[Edge]:
    made = edge_of(place)
    for name in bed.hosts:
        made.set(name, READY)
    made.route("toy", Routing())
    yield made
    made.close()


def link_of(edge: Edge) -> RemoteEdge:
    assert isinstance(edge.link, RemoteEdge)
    return edge.link


def test_all_that_a_rollout_does_goes_over_ssh(edge: Edge, bed: HostsBed) -> None:
    edge.set("a", DRAIN)
    edge.wait_idle("a", 1)
    edge.set("a", MAINT)
    edge.route("toy", Routing(7, 8, 25))
    assert edge.routing("toy") == Routing(7, 8, 25) == bed.edge.routing("toy")
    assert bed.edge.state("a").admin == MAINT and "triton 1 a" in (bed.folder / STATES).read_text()
    assert (bed.folder / ROUTES).read_text() == "toy 7:8:2500\n"
    bed.client.post("toy", b'{"inputs":[]}')
    assert sum(one.requests for one in edge.counters("toy").values()) == 1
    edge.set("a", READY)
    edge.wait_up("a", 5)
    assert edge.reassert() == []


def test_a_flip_takes_no_new_session(edge: Edge) -> None:
    begun = time.monotonic()
    for version in range(1, 21):
        edge.route("toy", Routing(version))
    assert time.monotonic() - begun < 2  # 20 flips


def test_a_session_that_ended_is_opened_again(edge: Edge) -> None:
    edge.route("toy", Routing(7))
    session = link_of(edge)._session
    assert session is not None
    session.channel.close()
    with pytest.raises(EdgeUnreachable, match="does not answer over SSH"):
        edge.routing("toy")
    assert edge.routing("toy") == Routing(7)


def test_an_edge_that_is_away_is_unreachable(place: FleetEdge) -> None:
    assert place.ssh
    with pytest.raises(EdgeUnreachable, match="us-east does not answer over SSH"):
        edge_of(replace(place, ssh=replace(place.ssh, port=1))).states()


def test_a_haproxy_that_is_down_is_unreachable_and_starts_with_the_new_route(
    edge: Edge, bed: HostsBed
) -> None:
    assert bed.process
    bed.process.terminate()
    bed.process.wait()
    try:
        with pytest.raises(EdgeUnreachable, match="Is HAProxy up there"):
            edge.route("toy", Routing(6))
    finally:
        bed.start()
    assert edge.routing("toy") == Routing(6)


def test_a_config_is_rolled_out_and_what_was_set_holds(edge: Edge, bed: HostsBed) -> None:
    link, before = link_of(edge), haproxy_cfg(bed.site, REGION)
    assert link.read_config() == before
    edge.set("a", MAINT)
    edge.route("toy", Routing(7))
    settings = replace(bed.site.edge, max_queue=77)
    link.install_config(haproxy_cfg(replace(bed.site, edge=settings), REGION))
    assert "queue(triton) ge 77" in link.read_config()
    assert edge.routing("toy") == Routing(7) and edge.state("a").admin == MAINT
    assert edge.reassert() == []
    answer = bed.client.post("toy", b'{"inputs":[]}')
    assert (answer.status, answer.headers.get("lockgate-version")) == (200, "7")
    link.install_config(before)


def test_a_config_that_haproxy_refuses_changes_nothing(edge: Edge, bed: HostsBed) -> None:
    before = link_of(edge).read_config()
    with pytest.raises(
        EdgeError, match=r"HAProxy refuses the config: .*unknown keyword 'nonsense'"
    ):
        link_of(edge).install_config(f"{before}\nfrontend x\n  nonsense\n")
    assert link_of(edge).read_config() == before
    assert bed.client.post("toy", b'{"inputs":[]}').status == 200


def test_a_config_with_which_haproxy_does_not_start_is_taken_back(
    edge: Edge, bed: HostsBed
) -> None:
    """It is well formed; the port is another program's, which only the start finds out."""
    before = link_of(edge).read_config()
    taken = before.replace(
        "frontend prometheus\n", "frontend prometheus\n  bind 127.0.7.1:"
        f"{bed.site.ports.triton_http}\n",
    )  # fmt: skip
    with pytest.raises(EdgeError, match="did not come up with the config; it has the one before"):
        link_of(edge).install_config(taken)
    assert link_of(edge).read_config() == before
    assert bed.client.post("toy", b'{"inputs":[]}').status == 200
    # HAProxy loses a reload that is ordered while one fails; then its master would still count the
    # failed one here, and the next reload would find it busy.
    assert "[failed: 0]" in masters_answer(bed, "show proc")
    settings = replace(bed.site.edge, max_queue=78)
    link_of(edge).install_config(haproxy_cfg(replace(bed.site, edge=settings), REGION))
    link_of(edge).install_config(before)


def masters_answer(bed: HostsBed, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(bed.folder / "master.sock"))
        connection.sendall(f"{command}\n".encode())
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode()


def on_its_own_machine(bed: HostsBed, place: FleetEdge, **settings: int) -> Site:
    """The bed's site, its edge reached as `place` is, with some settings of its own."""
    assert place.ssh
    way = SiteEdgeSsh("127.0.0.1", place.ssh.port, place.ssh.user, VALIDATOR[0].parent)
    edges = {**bed.site.edges, REGION: replace(bed.site.edges[REGION], ssh=way)}
    return replace(bed.site, edges=edges, edge=replace(bed.site.edge, **settings))


def test_fab_shows_what_differs_and_rolls_it_out(
    edge: Edge, bed: HostsBed, place: FleetEdge
) -> None:
    served = replace(place, url=bed.site.edges[REGION].url)
    same, site = on_its_own_machine(bed, place), on_its_own_machine(bed, place, max_queue=78)
    assert edge_lines([edge_change(same, served)]) == ["us-east: as conf/site has it"]
    change = edge_change(site, served)
    assert changed_lines(change) == 4  # two rules, removed and added
    assert plan_lines([change]) == [
        "edge us-east: 4 lines of its config differ from conf/site; fab edges shows them"
    ]
    edge.route("toy", Routing(7))
    assert roll_edge(change) == []
    assert edge.routing("toy") == Routing(7)
    assert not edge_change(site, served).lines
    # Nobody answers clients with the next one: it is taken back.
    with pytest.raises(EdgeError, match="did not answer a client"):
        roll_edge(
            replace(edge_change(same, served), edge=replace(served, url="http://127.0.0.1:1"))
        )
    assert not edge_change(site, served).lines
    roll_edge(edge_change(same, served))


@dataclass(frozen=True)
class TypedFab:
    """`fab` as a person types it, on the bed's site with its files in `folder`: its eastern edge is
    reached by SSH, its western one is root's on this machine."""

    folder: Path
    site: Site

    @property
    def west(self) -> Path:
        return self.folder / "haproxy-us-west.cfg"

    @property
    def overrides(self) -> list[str]:
        site = self.site
        hosts = {name: vars(host) for name, host in site.hosts.items()}
        edges = {
            name: {key: value for key, value in vars(edge).items() if value and key != "ssh"}
            for name, edge in site.edges.items()
        }
        way = site.edges[REGION].ssh
        assert way
        edges[REGION]["ssh"] = {key: value for key, value in vars(way).items() if value}
        ports = ("triton_http", "triton_grpc", "host_agent")
        return [
            *(
                f"~site.{key}.{name}"
                for key in ("hosts", "edges")
                for name in compose("site").site[key]
            ),
            f"+site.hosts={_inline(hosts)}",
            f"+site.edges={_inline(edges)}",
            *(f"site.ports.{name}={getattr(site.ports, name)}" for name in ports),
            *(f"site.edge.{key}={value}" for key, value in vars(site.edge).items()),
            f"site.groups.edge={site.groups.edge}",
            f"site.paths.edge_log={site.paths.edge_log}",
            f"site.paths.etc={self.folder}",
            f"site.paths.journal={self.folder}/journal",
            *(
                f"site.paths.{key}={getattr(site.paths, key)}"
                for key in ("deploy_key", "known_hosts")
            ),
        ]

    def edges(self, *words: str, change: str = "") -> subprocess.CompletedProcess[str]:
        sets = [*self.overrides, *([change] if change else [])]
        return subprocess.run(
            [sys.executable, "-m", "fabric", "edges", *words]
            + [part for text in sets for part in ("--set", text)],
            cwd=REPO, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def _inline(value: object) -> str:
    """A mapping as an override has it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_inline(one)}" for key, one in value.items()) + "}"
    return str(value)


@pytest.fixture
def fab(bed: HostsBed, place: FleetEdge, tmp_path: Path) -> TypedFab:
    assert place.ssh
    site = on_its_own_machine(bed, place)
    paths = replace(site.paths, deploy_key=place.ssh.key, known_hosts=place.ssh.known_hosts)
    made = TypedFab(tmp_path, replace(site, paths=paths))
    made.west.write_text(haproxy_cfg(site, "us-west", validator_at(tmp_path)))
    return made


def test_fab_edges_is_typed_and_ends_with_its_exit_code(
    edge: Edge, bed: HostsBed, fab: TypedFab
) -> None:
    first = link_of(edge).read_config()
    edge.route("toy", Routing(7))
    done = fab.edges("--roll", "--json", change="site.edge.max_queue=79")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert all(one["lines"] and not one["problem"] for one in shown.values())
    assert list(shown) == [REGION, "us-west"]
    assert "installed, reloaded, and a client was answered" in done.stderr
    assert "root's on this machine: scripts/site up" in done.stderr
    rolled = link_of(edge).read_config()
    assert "queue(triton) ge 79" in rolled and edge.routing("toy") == Routing(7)

    kept = fab.edges("--roll", "--json", change=f"site.edges.{REGION}.ssh.etc=/nowhere")
    assert (kept.returncode, kept.stdout) == (1, ""), kept.stderr
    assert "HAProxy refuses the config" in kept.stderr
    assert link_of(edge).read_config() == rolled and edge.routing("toy") == Routing(7)
    assert bed.client.post("toy", b'{"inputs":[]}').status == 200

    fab.west.unlink()
    partly = fab.edges("--roll")
    assert partly.returncode == 3 and f"{REGION} has the new config." in partly.stderr
    assert "haproxy-us-west.cfg: No such file" in partly.stderr
    assert link_of(edge).read_config() == first


def test_an_edge_that_cannot_be_read_is_a_sentence(bed: HostsBed, place: FleetEdge) -> None:
    site = replace(bed.site, paths=replace(bed.site.paths, etc=bed.folder / "none"))
    away = edge_change(site, replace(place, ssh=None))
    assert re.search(r"us-east: .*haproxy-us-east.cfg: No such file", away.problem)
    assert edge_lines([away]) == [away.problem] and plan_lines([away]) == []


def test_the_machine_shows_its_request_log_to_prometheus(edge: Edge, bed: HostsBed) -> None:
    edge.route("toy", Routing(7))
    install(bed.folder / "etc" / "edge-log", edge_log_files())
    port, site = free_port(), bed.site
    command = edge_log_command(
        bed.folder / "etc", site.paths.edge_log, bed.folder, REGION, "127.0.0.1", port, (0.3, 1)
    )
    # The system's python needs python3-prometheus-client, which a machine of the tests may lack.
    program = subprocess.Popen([sys.executable, *command[1:]])
    try:

        def counted(series: str) -> float:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
                found = re.search(rf"^{re.escape(series)} (.+)$", page.read().decode(), re.M)
                return float(found[1]) if found else -1.0
            return -1.0

        requests = f'lockgate_requests_total{{model="toy",region="{REGION}"}}'
        until(lambda: counted(requests) == 0)
        until(lambda: bool(bed.answering(times=1)) and counted(requests) > 0)
        bucket = "lockgate_version_request_duration_seconds_bucket"
        assert counted(f'{bucket}{{le="+Inf",model="toy",region="{REGION}",version="7"}}') > 0
    finally:
        program.terminate()
        program.wait()


@pytest.mark.parametrize(
    "request_",
    [
        {"do": "query", "command": "show stat; shutdown frontend infer"},
        {"do": "query", "command": "show stat;shutdown frontend infer"},
        {"do": "query", "command": "show stat\nshutdown frontend infer"},
        {"do": "query", "command": "set server triton/a addr 6.6.6.6"},
        {"do": "query", "command": "set server prometheus/a state maint"},
        {"do": "query", "command": "show map /etc/passwd"},
        {"do": "query", "command": "set map /state/routes.map toy 1:2"},
        {"do": "query", "command": "show sess all"},
        {"do": "query"},
        {"do": "read", "name": "../../etc/passwd"},
        {"do": "write", "name": "haproxy.cfg", "text": ""},
        {"do": "write", "name": ROUTES, "text": "toy 1:2:3"},
        {"do": "write", "name": ROUTES, "text": "toy x\n"},
        {"do": "write", "name": STATES, "text": "1\n\x00\n"},
        {"do": "install"},
        {"do": "install", "text": "x" * ((1 << 20) + 1)},
        {"do": "shell", "command": "id"},
        {"do": ["query"]},
        [],
        7,
    ],
)
def test_a_request_that_is_not_of_a_rollout_is_refused(request_: object) -> None:
    with pytest.raises(EdgeHostRefusal):
        parse_edge_request(json.dumps(request_), Path("/state"))


@pytest.mark.parametrize("line", ["", "{", "[" * 100_000, '{"do": "config", "do": 1}'])
def test_a_line_that_is_no_request_is_refused(line: str) -> None:
    with pytest.raises(EdgeHostRefusal):
        parse_edge_request(line, Path("/state"))


@pytest.mark.parametrize("command", ["id", "lockgate 0123456789abcdef", "lockgate x session", ""])
def test_the_account_does_nothing_else(command: str, place: FleetEdge) -> None:
    ssh = place.ssh
    assert ssh
    done = subprocess.run(
        ["ssh", "-F", "none", "-i", str(ssh.key), "-o", f"UserKnownHostsFile={ssh.known_hosts}",
         "-o", "BatchMode=yes", "-p", str(ssh.port), f"{ssh.user}@127.0.0.1", command],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.endswith("lockgate: this account answers fab and nothing else\n")


def test_an_edge_with_a_way_to_it_is_reached_by_it() -> None:
    config = compose("rollout")
    OmegaConf.set_struct(config, False)
    config.site.edges["us-east"].ssh = {
        "address": "10.0.0.7", "port": 22, "user": "lockgate-edge", "etc": "/etc/lockgate",
        "proxy_jump": "ops@gate:22",
    }  # fmt: skip
    first, second = fleet_from(config).edges
    assert first.ssh and (first.address, first.ssh.user) == ("10.0.0.7", "lockgate-edge")
    assert (first.ssh.port, first.ssh.proxy_jump) == (22, "ops@gate:22")
    assert first.ssh.known_hosts == fleet_from(config).ssh.known_hosts
    assert second.ssh is None
    config.site.edges["us-east"].ssh.proxy_jump = "x; y"
    with pytest.raises(FleetError, match="proxy_jump"):
        fleet_from(config)
