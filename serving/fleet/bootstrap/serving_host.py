"""The wanted facts of a serving host, in the order in which they are made."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path

from conf.site_checks import host_port
from serving.artifact import verify
from serving.fleet.bootstrap import restart_request, units
from serving.fleet.bootstrap.facts import (
    HostAccount,
    HostBinary,
    HostEnvironment,
    HostFact,
    HostFile,
    HostFolder,
    HostGroup,
    HostImage,
    HostInterpreter,
    HostPackages,
    HostTree,
    HostUnit,
    HostUnitOff,
)
from serving.fleet.bootstrap.hardened_unit import NODE_EXPORTER as NODE_EXPORTER_UNIT
from serving.fleet.bootstrap.hardened_unit import WRITTEN
from serving.fleet.bootstrap.layout import NGC, BootstrapSettings, HostLayout
from serving.fleet.bootstrap.ssh_access import (
    LOGIN_SHELL,
    MAX_STARTUPS,
    RECEIVES_ONLY,
    authorized_key,
    receive_command,
    session_options,
)
from serving.fleet.bootstrap.wheelhouse import NODE_EXPORTER, Wheelhouse
from serving.fleet.haproxy.grpc_door import door_cfg
from serving.host.home import settings_json
from serving.host.installation import host_files

JOURNAL_GROUP = "systemd-journal"
UNITS = "/etc/systemd/system"
SSHD = "/etc/ssh/sshd_config.d/lockgate.conf"
JOURNAL_FOLDER = "/etc/systemd/journald.conf.d"
JOURNAL_LIMITS = f"{JOURNAL_FOLDER}/lockgate.conf"
EXPORTER = Path(__file__).resolve().parents[2] / "observe" / "host_exporter.py"
"""A complete program; by its place, because the room of observation imports the fleet's."""
NO_SHELL = "/usr/sbin/nologin"
FINISH = (
    "ENVIRONMENT/bin/python", "-I", "-B", "-c",
    "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
    " from serving.triton import install_stub; install_stub(Path(sys.argv[2]))",
)  # fmt: skip


@dataclass(frozen=True)
class HostTrust:
    """A host's trust: the public key that deploys, the text of its allowed signers, the private
    key by which it fetches from its peers, and the text of etc/peers.json."""

    deploy_key: str
    allowed_signers: str
    fetch_key: str
    peers: str


def serving_host(layout: HostLayout, trust: HostTrust, wheels: Wheelhouse) -> list[HostFact]:
    """Every fact of the host, first to last."""
    return [
        HostInterpreter(layout.settings.python),
        HostPackages(packages(layout)),
        *accounts(layout),
        *folders(layout),
        HostTree(layout.path("etc/host"), host_files()),
        *files(layout, trust),
        *environment(layout, wheels),
        *(HostFile(f"{UNITS}/{name}", text) for name, text in units.unit_texts(layout).items()),
        *running(layout),
    ]


def packages(layout: HostLayout) -> tuple[str, ...]:
    """Of the distribution, with podman where Triton is a container."""
    container = ("podman", "crun") if layout.settings.runtime == NGC else ()
    return (*layout.settings.packages, *container)


def accounts(layout: HostLayout) -> list[HostFact]:
    """The identities of a host. The verifier is in the group of the account that receives, because
    it takes packages out of where they arrive, and in the one that reads the journal, for fab logs.
    """
    return [
        HostGroup(layout.serving_group),
        HostAccount(layout.receive, LOGIN_SHELL),
        HostAccount(
            layout.verify, LOGIN_SHELL, (layout.serving_group, layout.receive, JOURNAL_GROUP)
        ),
        HostAccount(layout.triton_user, NO_SHELL, (layout.serving_group,)),
    ]


def folders(layout: HostLayout) -> list[HostFact]:
    """The host's folders, parents first."""
    verify, triton, serving = layout.verify, layout.triton_user, layout.serving_group
    path = layout.path
    return [
        HostFolder(path("")),
        *(HostFolder(path(name)) for name in ("etc", "bin", "run")),
        # Root alone, who makes the environment of what lies in it.
        HostFolder(path("wheelhouse"), mode=0o700),
        *(HostFolder(path(name), verify, verify) for name in ("model-repository", "packages")),
        HostFolder(path("state"), verify, verify),
        # What arrives is its group's too, so that the verifier can remove it.
        HostFolder(path("staging"), layout.receive, layout.receive, 0o2770),
        # Who may enter these two may control Triton, and have the host verified.
        HostFolder(path("run/triton"), triton, serving, 0o2750),
        HostFolder(path("watch"), verify, serving, 0o2750),
        HostFolder(JOURNAL_FOLDER),
    ]


def files(layout: HostLayout, trust: HostTrust) -> list[HostFact]:
    """Settings and programs: root's, and put here by a bootstrap only, never by a deployment."""
    path = layout.path
    command = shlex.join(layout.program("command"))
    verbs = authorized_key(trust.deploy_key, command, [layout.inference])
    receives = authorized_key(trust.deploy_key, receive_command(path("staging")))
    return [
        HostFile(path("etc/host.json"), _settings(layout)),
        HostFile(path("etc/verify.py"), _text(verify.__file__), mode=0o755),
        HostFile(path("etc/allowed_signers"), trust.allowed_signers),
        HostFile(path("etc/authorized_keys"), verbs),
        HostFile(path("etc/authorized_keys.staging"), receives),
        HostFile(path("etc/fetch_key"), trust.fetch_key, layout.verify, layout.verify, 0o600),
        HostFile(path("etc/peers.json"), trust.peers),
        HostFile(path("etc/restart.py"), _text(restart_request.__file__)),
        HostFile(path("etc/door.cfg"), _door(layout)),
        HostFile(path("etc/host_exporter.py"), _text(EXPORTER)),
        HostFile(JOURNAL_LIMITS, journal_limits(layout.settings)),
        HostFile(SSHD, sshd_options(layout), check=("sshd", "-t")),
    ]


def environment(layout: HostLayout, wheels: Wheelhouse) -> list[HostFact]:
    """The serving environment and the other programs that the control host carries."""
    house = layout.path("wheelhouse")
    made: list[HostFact] = []
    if layout.settings.node_exporter:
        digest = wheels.node_exporter
        made.append(
            HostBinary(layout.path("bin/node_exporter"), f"{house}/{NODE_EXPORTER}", digest)
        )
    finish = (*FINISH, layout.path("etc/host"), "ENVIRONMENT")
    digest = hashlib.sha256(wheels.requirements.encode()).hexdigest()
    made.append(HostEnvironment(layout.environment, house, wheels.requirements, digest, finish))
    if layout.settings.runtime == NGC:
        made.append(HostImage(layout.settings.image))
    return made


def running(layout: HostLayout) -> list[HostFact]:
    """The units that run, each with the files that it has read at its start."""
    path = layout.path
    code = (layout.environment, path("etc/host"), path("etc/host.json"))

    def unit(name: str, *read: str) -> HostUnit:
        return HostUnit(name, (f"{UNITS}/{name}", *read))

    made = [
        *reread_units(),
        unit(units.RESTART),
        unit(units.WATCH, *code),
        unit(units.AGENT, *code),
        unit(units.TRITON, *code),
        unit(units.DOOR, path("etc/door.cfg")),
        unit(units.EXPORTER, path("etc/host_exporter.py")),
    ]
    if layout.settings.node_exporter:
        made.append(unit(NODE_EXPORTER_UNIT, path("bin/node_exporter")))
    # The package brings it along; a host needs the program alone.
    return [HostUnitOff("haproxy.service"), *made]


def sshd_options(layout: HostLayout) -> str:
    """A drop-in of the host's own sshd: Lockgate's two accounts, and nobody else's."""
    session = session_options([layout.inference], layout.session_environment)
    # In a Match block the first value counts.
    receives = [*RECEIVES_ONLY, *(line for line in session if "TcpForwarding" not in line)]
    keys = layout.path("etc/authorized_keys")
    # The second is the verifier's own: which host may read which package, and until when.
    verbs = f'"{keys}" "{layout.path("state/offers")}"'
    return "\n".join(
        [
            WRITTEN,
            MAX_STARTUPS,
            f"Match User {layout.verify}",
            *(f"    {line}" for line in (f"AuthorizedKeysFile {verbs}", *session)),
            f"Match User {layout.receive}",
            *(f"    {line}" for line in (f'AuthorizedKeysFile "{keys}.staging"', *receives)),
            "",
        ]
    )


def reread_units() -> list[HostFact]:
    """The distribution's own units that read a file of ours."""
    return [
        HostUnit("systemd-journald.service", (JOURNAL_LIMITS,), ours=False),
        HostUnit("ssh.service", (SSHD,), "reload", ours=False),
    ]


def journal_limits(settings: BootstrapSettings) -> str:
    """Bounds of a machine's logs; units log to the journal, which rotates by itself."""
    return "\n".join(
        [
            WRITTEN,
            "[Journal]",
            "Storage=persistent",
            f"SystemMaxUse={settings.journal_max_mib}M",
            "",
        ]
    )


def _door(layout: HostLayout) -> str:
    bind = host_port(layout.address, layout.grpc_port)
    return door_cfg(bind, layout.triton.grpc_target, layout.edge)


def _settings(layout: HostLayout) -> str:
    return settings_json(
        grpc_target=layout.triton.grpc_target,
        verify_socket=Path(layout.path("watch/verify.sock")),
        verify_interval_s=layout.verify_interval_s,
        restart=["/usr/bin/python3", "-I", layout.path("etc/restart.py"), layout.restart_socket],
        triton=layout.triton.argv(),
        http=(layout.address, layout.http_port),
        agent=(layout.address, layout.agent_port),
        golden_interval_s=layout.golden_interval_s,
        golden_timeout_s=layout.golden_timeout_s,
        logs=["/usr/bin/journalctl", "--unit", units.TRITON, "--no-pager", "--lines", "{lines}"],
        approvals=layout.approvals,
        max_instances=layout.max_instances,
    )


def _text(module: str | Path) -> str:
    return Path(module).read_text(encoding="utf-8")
