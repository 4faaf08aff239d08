"""The serving hosts: each an sshd, a tritonserver and a door on an address, with keys of its own.

Whoever deploys reaches two accounts and one command at each: lg-host receives packages into
staging/, lg-verify does the verbs of `serving.host`, and owns what Triton may load. A host's Triton
is run by the host's own supervisord, as lg-triton, which may write nothing of that.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from conf.site_checks import host_port
from conf.site_schema import Site
from scripts.box import keys, restart_program, supervisor
from scripts.box.files import ensure_files, hand_over
from scripts.box.identity import REPO
from scripts.box.probe import greets, http_ok, is_socket, listens, sends_a_line
from scripts.box.program import File, Folder, Port, Program
from serving.artifact.signature import APPROVER, allowed_signer
from serving.artifact.verify import IDENTITY
from serving.fleet.bootstrap.host_pin import known_hosts_line
from serving.fleet.bootstrap.ssh_access import (
    MAX_STARTUPS,
    RECEIVES_ONLY,
    authorized_key,
    receive_command,
    session_options,
)
from serving.fleet.haproxy.grpc_door import door_cfg
from serving.host.home import settings_json
from serving.host.installation import host_files
from serving.host.peers import Peer, peers_json
from serving.triton import TritonServer

GRPC_SUFFIX = 8001
"""Triton adds it to the path of its control socket, which has no port."""


def home(site: Site, host: str) -> Path:
    """The folder that stands for the host's disk."""
    return site.paths.hosts / host


def triton(site: Site, host: str) -> TritonServer:
    """The host's Triton. It loads every model of its repository at start: a host that was
    restarted serves what it served. Its control is a socket in a folder of the serving group."""
    return TritonServer(
        env_dir=site.serving_env,
        repository=home(site, host) / "model-repository",
        address=site.hosts[host].address,
        http_port=site.ports.triton_http,
        grpc_port=GRPC_SUFFIX,
        metrics_port=site.ports.triton_metrics,
        models=("*",),
        exit_timeout_s=site.triton.exit_timeout_s,
        exit_on_error=False,
        http_threads=site.triton.http_threads,
        grpc_address=f"unix:{home(site, host)}/run/triton/grpc.sock",
    )


def door(site: Site, host: str) -> File:
    """The config of the host's door: what the network may reach of its Triton's gRPC."""
    address = host_port(site.hosts[host].address, site.ports.triton_grpc)
    target = triton(site, host).grpc_target
    return File(home(site, host) / "etc" / "door.cfg", door_cfg(address, target, site.edge))


def host_program(site: Site, host: str, program: str) -> tuple[str, ...]:
    """The command line of `command`, `watch`, `agent` or `start` of the host's own programs."""
    here = home(site, host)
    python = f"{site.serving_env}/bin/python"
    return (python, "-I", "-B", str(here / "etc" / "host"), str(here), program)


def forwards(site: Site, host: str) -> list[str]:
    """`address:port` of the host's inference: all that a deployment reaches through its SSH."""
    return [host_port(site.hosts[host].address, site.ports.triton_http)]


def sshd_config(site: Site, host: str) -> str:
    """sshd of one host: two users, keys only, one command for each, one forward."""
    here, address = home(site, host), site.hosts[host].address
    environment = {
        "PATH": f"{site.serving_env}/bin:/usr/bin:/bin",
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        supervisor.MARK: str(site.root),
    }
    return "\n".join(
        [
            "# Written by scripts/site up; edit conf/site, not this file.",
            f"Port {site.ports.ssh}",
            f"ListenAddress {address}",
            f'HostKey "{here}/etc/ssh_host_ed25519_key"',
            f'PidFile "{here}/run/sshd.pid"',
            # The second is the verifier's own: which host may read which package, and until when.
            f'AuthorizedKeysFile "{here}/etc/authorized_keys" "{here}/state/offers"',
            # The file is root's in a folder of root's, but the checkout above it may be anybody's.
            "StrictModes no",
            f"AllowUsers {site.users.verify} {site.users.host}",
            "PermitRootLogin no",
            "UsePAM no",
            *session_options(forwards(site, host), environment),
            MAX_STARTUPS,
            "UseDNS no",
            "PrintMotd no",
            f"Match User {site.users.host}",
            f'    AuthorizedKeysFile "{here}/etc/authorized_keys.staging"',
            *(f"    {option}" for option in RECEIVES_ONLY),
            "",
        ]
    )


def supervisord_conf(site: Site, host: str, server: TritonServer) -> str:
    """The host's own supervisord: Triton, and a socket for the serving group."""
    return supervisor.host_conf(
        folder=home(site, host),
        user=site.users.triton,
        group=site.groups.serving,
        # The last word of defence against two Tritons on one port: when the supervisor dies,
        # however it dies, Triton gets SIGTERM.
        command=shlex.join(["setpriv", "--pdeathsig", "TERM", *host_program(site, host, "start")]),
        environment=server.environment(),
        stop_wait_s=server.exit_timeout_s + 5,
    )


def folders(site: Site) -> list[Folder]:
    host_user, triton_user, verify_user = site.users.host, site.users.triton, site.users.verify
    serving = site.groups.serving
    code = sorted({Path(name).parent for name in host_files()})
    made = [Folder(site.paths.hosts)]
    for host in site.hosts:
        here = home(site, host)
        made += [
            Folder(here),
            Folder(here / "etc"),
            *(Folder(here / "etc" / "host" / folder) for folder in code),
            Folder(here / "model-repository", verify_user, verify_user),
            Folder(here / "packages", verify_user, verify_user),
            Folder(here / "state", verify_user, verify_user),
            # What lg-host writes here is its group's too, so that the verifier can remove it.
            Folder(here / "staging", host_user, host_user, 0o2770),
            Folder(here / "log", triton_user, serving),
            Folder(here / "run", triton_user, serving),
            # Who may enter these two may control Triton, and have the host verified.
            Folder(here / "run" / "triton", triton_user, serving, 0o2750),
            Folder(here / "watch", verify_user, serving, 0o2750),
        ]
    return made


def signers(site: Site, release: str) -> str:
    """The allowed signers of a host: the public key `release`, and the site's approvers."""
    approvers = (allowed_signer(key, APPROVER) for key in site.signing.approvers)
    return "".join((allowed_signer(release), *approvers))


def ensure_keys(site: Site) -> None:
    """Make every key of the fleet that is missing, and pin what is there."""
    deploy = keys.ensure_ed25519(site.paths.deploy_key, site.users.deploy, "deploy@lockgate")
    release = keys.ensure_ed25519(site.paths.release_key, site.users.sign, IDENTITY)
    verifier = (REPO / "serving" / "artifact" / "verify.py").read_text()
    known = ""
    pinned = []
    peers = {}
    for host, spec in site.hosts.items():
        etc = home(site, host) / "etc"
        public = keys.ensure_ed25519(etc / "ssh_host_ed25519_key", "root", f"host@{host}")
        known += known_hosts_line(host, spec.address, site.ports.ssh, public)
        fetch = keys.ensure_ed25519(etc / "fetch_key", site.users.verify, f"fetch@{host}")
        peers[host] = peer_of(site, host, public, fetch)
        pinned += [
            File(etc / "authorized_keys", verbs_key(site, host, deploy)),
            File(etc / "authorized_keys.staging", staging_key(site, host, deploy)),
            # The verifier too is installed with the host and never by a deployment.
            File(etc / "verify.py", verifier, mode=0o755),
            # Root's, and written here only: a deployment cannot choose whom a host believes.
            File(etc / "allowed_signers", signers(site, release)),
        ]
    pinned += peer_files(site, peers)
    pinned += [
        File(site.paths.known_hosts, known),
        File(site.paths.allowed_signers, signers(site, release)),
    ]
    ensure_files(pinned)


def peer_of(site: Site, host: str, host_key: str, fetch_key: str) -> Peer:
    """`host` as the others of its region know it; the keys are lines of .pub files."""
    public = [" ".join(line.split()[:2]) for line in (host_key, fetch_key)]
    return Peer(site.hosts[host].address, site.ports.ssh, *public)


def peer_files(site: Site, peers: Mapping[str, Peer]) -> list[File]:
    """For each host the file with the others of its region: root's, no deployment chooses them."""
    made = []
    for host, spec in site.hosts.items():
        region = {name for name, one in site.hosts.items() if one.region == spec.region}
        others = {name: peer for name, peer in peers.items() if name in region - {host}}
        made.append(File(home(site, host) / "etc" / "peers.json", peers_json(others)))
    return made


def verbs_key(site: Site, host: str, deploy: str) -> str:
    """The deploy key at the verifier's account: the verbs, and a forward to inference."""
    command = shlex.join(host_program(site, host, "command"))
    return authorized_key(deploy, command, forwards(site, host))


def staging_key(site: Site, host: str, deploy: str) -> str:
    """The deploy key at the account that receives: rsync, into staging, and nothing else."""
    return authorized_key(deploy, receive_command(str(home(site, host) / "staging")))


def adopt(site: Site) -> None:
    """Give the verifier what an earlier layout of the site left to another identity.

    Nothing of it is believed: the watch of each host verifies it before Triton starts.
    """
    for host in site.hosts:
        for name in ("packages", "model-repository"):
            hand_over(home(site, host) / name, site.users.verify)


def code_files(site: Site, host: str) -> list[File]:
    """The host's programs and their settings: root's, like the verifier."""
    etc, server = home(site, host) / "etc", triton(site, host)
    settings = settings_json(
        grpc_target=server.grpc_target,
        verify_socket=watch_socket(site, host),
        verify_interval_s=site.triton.verify_interval_s,
        restart=[f"{site.serving_env}/bin/python", "-I", "-B", str(etc / "restart.py"),
                 str(supervisor.host_socket(home(site, host))), "triton"],
        triton=server.argv(),
        http=(server.address, site.ports.triton_http),
        agent=(server.address, site.ports.host_agent),
        golden_interval_s=site.triton.golden_interval_s,
        golden_timeout_s=site.triton.golden_timeout_s,
        logs=["/usr/bin/tail", "-n", "{lines}", str(triton_log(site, host))],
        approvals=site.signing.approvals,
        max_instances=site.triton.max_instances,
    )  # fmt: skip
    code = [File(etc / "host" / name, text) for name, text in host_files().items()]
    restart = File(etc / "restart.py", Path(restart_program.__file__).read_text())
    return [*code, restart, File(etc / "host.json", settings)]


def triton_log(site: Site, host: str) -> Path:
    return home(site, host) / "log" / "triton.log"


def watch_socket(site: Site, host: str) -> Path:
    return home(site, host) / "watch" / "verify.sock"


def programs(site: Site) -> list[Program]:
    made = []
    for host, spec in site.hosts.items():
        here, address = home(site, host), spec.address
        ports = site.ports
        sshd = File(here / "etc" / "sshd_config", sshd_config(site, host))
        control = File(
            here / "etc" / "supervisord.conf",
            supervisord_conf(site, host, triton(site, host)),
            "root", site.groups.serving, 0o640,
        )  # fmt: skip
        code = tuple(code_files(site, host))
        watched = watch_socket(site, host)
        guarded = door(site, host)
        made += [
            Program(
                name=f"verify-{host}",
                argv=host_program(site, host, "watch"),
                user=site.users.verify,
                files=code,
                probe=is_socket(watched),
            ),
            # Apart from the watch: a verification may read a disk for minutes, a hanging model
            # may keep a golden question waiting, and neither may hold up the other.
            Program(
                name=f"agent-{host}",
                argv=host_program(site, host, "agent"),
                user=site.users.verify,
                files=code,
                ports=(Port(address, ports.host_agent, "site.ports.host_agent"),),
                probe=sends_a_line(address, ports.host_agent),
            ),
            Program(
                name=f"sshd-{host}",
                argv=("/usr/sbin/sshd", "-D", "-e", "-f", str(sshd.path)),
                files=(sshd,),
                ports=(Port(address, ports.ssh, "site.ports.ssh"),),
                probe=greets(address, ports.ssh, b"SSH-2.0-"),
            ),
            Program(
                name=f"supervisor-{host}",
                argv=(f"{site.serving_env}/bin/supervisord", "--nodaemon",
                      "--configuration", str(control.path)),
                user=site.users.triton,
                files=(control, *code),
                needs=(f"verify-{host}",),
                probe=supervisor.answers_at(supervisor.host_socket(here)),
                stop_wait_s=site.triton.exit_timeout_s + 10,
            ),
            Program(
                name=f"triton-{host}",
                argv=(),
                user=site.users.triton,
                ports=(
                    Port(address, ports.triton_http, "site.ports.triton_http"),
                    Port(address, ports.triton_metrics, "site.ports.triton_metrics"),
                ),
                needs=(f"supervisor-{host}",),
                socket=supervisor.host_socket(here),
                alias="triton",
                log=triton_log(site, host),
                probe=http_ok(f"http://{address}:{ports.triton_http}/v2/health/live"),
                stop_wait_s=site.triton.exit_timeout_s + 10,
            ),
            Program(
                name=f"door-{host}",
                argv=("/usr/sbin/haproxy", "-db", "-f", str(guarded.path)),
                user=site.users.triton,
                files=(guarded,),
                ports=(Port(address, ports.triton_grpc, "site.ports.triton_grpc"),),
                probe=listens(address, ports.triton_grpc),
            ),
        ]  # fmt: skip
    return made
