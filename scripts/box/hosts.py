"""The serving hosts: each an sshd and a tritonserver on an address, with keys and files of its own.

A host's Triton is run by the host's own supervisord, as the user lg-triton: whoever deploys logs in
as lg-host and says `supervisorctl -c etc/supervisord.conf restart triton`, and needs no root.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from scripts.box import keys, supervisor
from scripts.box.files import ensure_files
from scripts.box.identity import REPO
from scripts.box.probe import greets, http_ok
from scripts.box.program import File, Folder, Port, Program
from serving.artifact.signature import allowed_signer
from serving.artifact.verify import IDENTITY
from serving.triton import TritonServer


def home(site: Any, host: str) -> Path:
    """The folder that stands for the host's disk."""
    return Path(site.paths.hosts) / host


def triton(site: Any, host: str, http_secret: str) -> TritonServer:
    """The host's Triton. It loads every model of its repository at start: a host that was
    restarted serves what it served."""
    return TritonServer(
        env_dir=Path(site.serving_env),
        repository=home(site, host) / "model-repository",
        address=str(site.hosts[host].address),
        http_port=site.ports.triton_http,
        grpc_port=site.ports.triton_grpc,
        metrics_port=site.ports.triton_metrics,
        models=("*",),
        exit_timeout_s=site.triton.exit_timeout_s,
        exit_on_error=False,
        http_threads=site.triton.http_threads,
        http_secret=http_secret,
    )


def forwards(site: Any, host: str) -> list[str]:
    """What a deployment may reach through its SSH connection: this host's own Triton."""
    address = site.hosts[host].address
    return [f"{address}:{site.ports.triton_grpc}", f"{address}:{site.ports.triton_http}"]


def sshd_config(site: Any, host: str) -> str:
    """sshd of one host: one user, keys only, one forward."""
    here, address = home(site, host), site.hosts[host].address
    environment = {
        "PATH": f"{site.serving_env}/bin:/usr/bin:/bin",
        "HOME": str(Path(site.root) / "home" / "host"),
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
            f'AuthorizedKeysFile "{here}/etc/authorized_keys"',
            # The file is root's in a folder of root's, but the checkout above it may be anybody's.
            "StrictModes no",
            f"AllowUsers {site.users.host}",
            "PermitRootLogin no",
            "AuthenticationMethods publickey",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UsePAM no",
            "AllowTcpForwarding local",
            "PermitOpen " + " ".join(forwards(site, host)),
            "AllowAgentForwarding no",
            "X11Forwarding no",
            "PermitTunnel no",
            "PermitUserRC no",
            # A fan-out opens many sessions at once; the default would drop some at random.
            "MaxStartups 60:30:120",
            "MaxSessions 40",
            "UseDNS no",
            "PrintMotd no",
            "Subsystem sftp internal-sftp",
            "SetEnv " + " ".join(f'"{key}={value}"' for key, value in environment.items()),
            "",
        ]
    )


def supervisord_conf(site: Any, host: str, server: TritonServer) -> str:
    """The host's own supervisord: Triton, and a socket for the serving group."""
    return supervisor.host_conf(
        folder=home(site, host),
        user=str(site.users.triton),
        group=str(site.groups.serving),
        # The last word of defence against two Tritons on one port: when the supervisor dies,
        # however it dies, Triton is told to stop.
        command=shlex.join(["setpriv", "--pdeathsig", "TERM", *server.argv()]),
        environment=server.environment(),
        stop_wait_s=server.exit_timeout_s + 5,
    )


def folders(site: Any) -> list[Folder]:
    host_user, triton_user = str(site.users.host), str(site.users.triton)
    serving = str(site.groups.serving)
    made = [Folder(Path(site.paths.hosts))]
    for host in site.hosts:
        here = home(site, host)
        made += [
            Folder(here),
            Folder(here / "etc"),
            Folder(here / "model-repository", host_user, host_user),
            Folder(here / "packages", host_user, host_user),
            Folder(here / "staging", host_user, host_user, 0o700),
            Folder(here / "log", triton_user, serving),
            Folder(here / "run", triton_user, serving),
        ]
    return made


def ensure_keys(site: Any) -> None:
    """Make every key of the fleet that is missing, and pin what is there."""
    deploy = keys.ensure_ed25519(
        Path(site.paths.deploy_key), str(site.users.deploy), "deploy@lockgate"
    )
    release = keys.ensure_ed25519(Path(site.paths.release_key), str(site.users.release), IDENTITY)
    verifier = (REPO / "serving" / "artifact" / "verify.py").read_text()
    known = ""
    pinned = []
    for host, spec in site.hosts.items():
        etc = home(site, host) / "etc"
        public = keys.ensure_ed25519(etc / "ssh_host_ed25519_key", "root", f"host@{host}")
        known += keys.known_hosts_line(host, spec.address, site.ports.ssh, public)
        keys.ensure_secret(secret_file(site, host), "root", 16, text=True)
        pinned += [
            File(etc / "authorized_keys", keys.authorized_key(deploy, forwards(site, host))),
            # The verifier too is installed with the host and never by a deployment.
            File(etc / "verify.py", verifier, mode=0o755),
            # Root's, and written here only: a deployment cannot choose whom a host believes.
            File(etc / "allowed_signers", allowed_signer(release)),
        ]
    pinned += [
        File(Path(site.paths.known_hosts), known),
        File(Path(site.paths.allowed_signers), allowed_signer(release)),
    ]
    ensure_files(pinned)


def secret(site: Any, host: str) -> str:
    """The host's secret for model control over HTTP, which no client of ours uses.

    The file is root's alone, and made with the host's keys. Triton takes the secret only as an
    argument, so users of the host itself can see it in /proc; see `serving.triton.TritonServer`.
    """
    path = secret_file(site, host)
    return path.read_text() if path.exists() else ""


def secret_file(site: Any, host: str) -> Path:
    return home(site, host) / "etc" / "triton-http-secret"


def programs(site: Any) -> list[Program]:
    made = []
    for host, spec in site.hosts.items():
        here, address = home(site, host), str(spec.address)
        ports = site.ports
        sshd = File(here / "etc" / "sshd_config", sshd_config(site, host))
        control = File(
            here / "etc" / "supervisord.conf",
            supervisord_conf(site, host, triton(site, host, secret(site, host))),
            "root", str(site.groups.serving), 0o640,
        )  # fmt: skip
        made += [
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
                user=str(site.users.triton),
                files=(control,),
                probe=supervisor.answers_at(supervisor.host_socket(here)),
                stop_wait_s=site.triton.exit_timeout_s + 10,
            ),
            Program(
                name=f"triton-{host}",
                argv=(),
                user=str(site.users.triton),
                ports=(
                    Port(address, ports.triton_http, "site.ports.triton_http"),
                    Port(address, ports.triton_grpc, "site.ports.triton_grpc"),
                    Port(address, ports.triton_metrics, "site.ports.triton_metrics"),
                ),
                needs=(f"supervisor-{host}",),
                socket=supervisor.host_socket(here),
                alias="triton",
                log=here / "log" / "triton.log",
                probe=http_ok(f"http://{address}:{ports.triton_http}/v2/health/live"),
                stop_wait_s=site.triton.exit_timeout_s + 10,
            ),
        ]  # fmt: skip
    return made
