"""The serving hosts: each an sshd and a tritonserver on an address, with keys and files of its own.

A host's Triton is run by the host's own supervisord, as the user lg-triton: whoever deploys logs in
as lg-host and runs `supervisorctl -c etc/supervisord.conf restart triton`, and needs no root.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from conf.site_schema import Site
from scripts.box import keys, supervisor
from scripts.box.files import ensure_files
from scripts.box.identity import REPO
from scripts.box.probe import greets, http_ok
from scripts.box.program import File, Folder, Port, Program
from serving.artifact.signature import APPROVER, allowed_signer
from serving.artifact.verify import IDENTITY
from serving.triton import TritonServer


def home(site: Site, host: str) -> Path:
    """The folder that stands for the host's disk."""
    return site.paths.hosts / host


def triton(site: Site, host: str, http_secret: str) -> TritonServer:
    """The host's Triton. It loads every model of its repository at start: a host that was
    restarted serves what it served."""
    return TritonServer(
        env_dir=site.serving_env,
        repository=home(site, host) / "model-repository",
        address=site.hosts[host].address,
        http_port=site.ports.triton_http,
        grpc_port=site.ports.triton_grpc,
        metrics_port=site.ports.triton_metrics,
        models=("*",),
        exit_timeout_s=site.triton.exit_timeout_s,
        exit_on_error=False,
        http_threads=site.triton.http_threads,
    )


def forwards(site: Site, host: str) -> list[str]:
    """`address:port` of the host's own Triton: all that a deployment reaches through its SSH."""
    address = site.hosts[host].address
    return [f"{address}:{site.ports.triton_grpc}", f"{address}:{site.ports.triton_http}"]


def sshd_config(site: Site, host: str) -> str:
    """sshd of one host: one user, keys only, one forward."""
    here, address = home(site, host), site.hosts[host].address
    environment = {
        "PATH": f"{site.serving_env}/bin:/usr/bin:/bin",
        "HOME": str(site.root / "home" / "host"),
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


def supervisord_conf(site: Site, host: str, server: TritonServer) -> str:
    """The host's own supervisord: Triton, and a socket for the serving group."""
    return supervisor.host_conf(
        folder=home(site, host),
        user=site.users.triton,
        group=site.groups.serving,
        # The last word of defence against two Tritons on one port: when the supervisor dies,
        # however it dies, Triton gets SIGTERM.
        command=shlex.join(["setpriv", "--pdeathsig", "TERM", *server.argv()]),
        environment=server.environment(),
        stop_wait_s=server.exit_timeout_s + 5,
    )


def folders(site: Site) -> list[Folder]:
    host_user, triton_user = site.users.host, site.users.triton
    serving = site.groups.serving
    made = [Folder(site.paths.hosts)]
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


def signers(site: Site, release: str) -> str:
    """The allowed signers of a host: the public key `release`, and the site's approvers."""
    approvers = (allowed_signer(key, APPROVER) for key in site.signing.approvers)
    return "".join((allowed_signer(release), *approvers))


def ensure_keys(site: Site) -> None:
    """Make every key of the fleet that is missing, and pin what is there."""
    deploy = keys.ensure_ed25519(site.paths.deploy_key, site.users.deploy, "deploy@lockgate")
    release = keys.ensure_ed25519(site.paths.release_key, site.users.release, IDENTITY)
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
            File(etc / "allowed_signers", signers(site, release)),
        ]
    pinned += [
        File(site.paths.known_hosts, known),
        File(site.paths.allowed_signers, signers(site, release)),
    ]
    ensure_files(pinned)


def secret(site: Site, host: str) -> str:
    """The host's secret for model control over HTTP, which no client of ours uses.

    The file is root's alone, and made with the host's keys. Triton takes the secret only as an
    argument, so users of the host itself can see it in /proc; see `serving.triton.TritonServer`.
    """
    path = secret_file(site, host)
    return path.read_text() if path.exists() else ""


def secret_file(site: Site, host: str) -> Path:
    return home(site, host) / "etc" / "triton-http-secret"


def programs(site: Site) -> list[Program]:
    made = []
    for host, spec in site.hosts.items():
        here, address = home(site, host), spec.address
        ports = site.ports
        sshd = File(here / "etc" / "sshd_config", sshd_config(site, host))
        control = File(
            here / "etc" / "supervisord.conf",
            supervisord_conf(site, host, triton(site, host, secret(site, host))),
            "root", site.groups.serving, 0o640,
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
                user=site.users.triton,
                files=(control,),
                probe=supervisor.answers_at(supervisor.host_socket(here)),
                stop_wait_s=site.triton.exit_timeout_s + 10,
            ),
            Program(
                name=f"triton-{host}",
                argv=(),
                user=site.users.triton,
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
