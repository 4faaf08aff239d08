"""The wanted facts of an edge's own machine, in the order in which they are made.

Its config, its map and the states of hosts are made once, and are then what rollouts write: a
config that differs from the site's is changed in one way only, that of `fab edges --roll`.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from serving.edge_host.installation import edge_files, edge_json, edge_key, edge_log_files
from serving.fleet.bootstrap.edge_layout import HAPROXY, EdgeLayout
from serving.fleet.bootstrap.edge_units import EDGE, EDGE_LOG, edge_unit_texts
from serving.fleet.bootstrap.facts import (
    HostAccount,
    HostBinary,
    HostFact,
    HostFile,
    HostFirstFile,
    HostFolder,
    HostGroup,
    HostPackages,
    HostTree,
    HostUnit,
    HostUnitOff,
)
from serving.fleet.bootstrap.hardened_unit import NODE_EXPORTER as NODE_EXPORTER_UNIT
from serving.fleet.bootstrap.hardened_unit import WRITTEN
from serving.fleet.bootstrap.serving_host import (
    JOURNAL_FOLDER,
    JOURNAL_LIMITS,
    NO_SHELL,
    SSHD,
    UNITS,
    journal_limits,
    reread_units,
)
from serving.fleet.bootstrap.ssh_access import (
    LOGIN_SHELL,
    MAX_STARTUPS,
    RECEIVES_ONLY,
    session_options,
)
from serving.fleet.bootstrap.wheelhouse import NODE_EXPORTER
from serving.fleet.haproxy.request_rules import VALIDATOR
from serving.fleet.haproxy.server_states import FIRST_FILES

PACKAGES = ("python3", "python3-prometheus-client", "openssh-server", "rsync", "haproxy")
_OF_THE_SYSTEM = frozenset(
    map(PurePosixPath, ("/", "/etc", "/home", "/opt", "/run", "/srv", "/usr", "/var", "/var/lib"))
)


def edge_machine(layout: EdgeLayout, deploy_key: str, node_exporter: str) -> list[HostFact]:
    """Every fact of the machine, first to last. `deploy_key` is the public one, `node_exporter` the
    digest of that program, "" without one."""
    return [
        HostPackages(PACKAGES),
        HostGroup(layout.edge_group),
        # HAProxy hands its sockets to the edge's group, being a member.
        HostAccount(layout.haproxy_user, NO_SHELL, (layout.edge_group,)),
        HostAccount(layout.ssh.user, LOGIN_SHELL, (layout.edge_group,)),
        *folders(layout),
        HostTree(layout.etc("edge"), edge_files()),
        HostTree(layout.etc("edge-log"), edge_log_files()),
        *files(layout, deploy_key),
        *programs(layout, node_exporter),
        *(HostFile(f"{UNITS}/{name}", text) for name, text in edge_unit_texts(layout).items()),
        *running(layout),
    ]


def folders(layout: EdgeLayout) -> list[HostFact]:
    """The machine's folders, parents first."""
    state, etc = PurePosixPath(layout.edge.state), PurePosixPath(layout.ssh.etc)
    own = [PurePosixPath(layout.path(name)) for name in ("", "bin")]
    log = PurePosixPath(layout.log_socket).parent
    made = (state, etc, own[0], log)
    parents = {parent for path in made for parent in path.parents} - _OF_THE_SYSTEM
    rooted = sorted({*parents, etc, *own})
    account, group = layout.ssh.user, layout.edge_group
    return [
        *(HostFolder(str(path)) for path in rooted),
        HostFolder(layout.path("programs"), mode=0o700),
        # A rollout writes here what HAProxy reads.
        HostFolder(layout.path("edge"), account, group, 0o2750),
        HostFolder(str(state), account, group, 0o2750),
        # HAProxy alone may write to the socket of its log, and replace nothing here.
        HostFolder(str(log), account, layout.haproxy_user, 0o2710),
        HostFolder(JOURNAL_FOLDER),
    ]


def files(layout: EdgeLayout, deploy_key: str) -> list[HostFact]:
    """Settings and programs of root's, and the first of those that rollouts write."""
    account, group = layout.ssh.user, layout.edge_group
    return [
        HostFile(layout.etc("edge.json"), edge_json(layout.home)),
        HostFile(layout.etc("authorized_keys"), edge_key(layout.ssh.etc, deploy_key)),
        *(HostFile(layout.etc(path.name), path.read_text(encoding="utf-8")) for path in VALIDATOR),
        *(
            HostFirstFile(str(layout.edge.state / name), text, account, group)
            for name, text in FIRST_FILES.items()
        ),
        HostFirstFile(
            layout.config, layout.config_text, account, group, check=_config_check(layout)
        ),
        HostFile(JOURNAL_LIMITS, journal_limits(layout.settings)),
        HostFile(SSHD, edge_sshd_options(layout), check=("sshd", "-t")),
    ]


def _config_check(layout: EdgeLayout) -> tuple[str, ...]:
    # As HAProxy's user and not as root: a config may load programs.
    user = layout.haproxy_user
    setpriv = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")
    return (*setpriv, HAPROXY, "-c", "-q", "-f", layout.config)


def programs(layout: EdgeLayout, node_exporter: str) -> list[HostFact]:
    """The programs that the control host carries."""
    if not layout.settings.node_exporter:
        return []
    source = layout.path(f"programs/{NODE_EXPORTER}")
    return [HostBinary(layout.path("bin/node_exporter"), source, node_exporter)]


def running(layout: EdgeLayout) -> list[HostFact]:
    """The units that run, each with the files that it has read at its start."""
    lua = tuple(layout.etc(path.name) for path in VALIDATOR)
    made = [
        # The package starts one of its own, of another config.
        HostUnitOff("haproxy.service"),
        *reread_units(),
        # A program that the distribution replaced is a reason too: the new one takes over.
        HostUnit(EDGE, (f"{UNITS}/{EDGE}", HAPROXY, *lua), "reload"),
        HostUnit(EDGE_LOG, (f"{UNITS}/{EDGE_LOG}", layout.etc("edge-log"))),
    ]
    if layout.settings.node_exporter:
        read = (f"{UNITS}/{NODE_EXPORTER_UNIT}", layout.path("bin/node_exporter"))
        made.append(HostUnit(NODE_EXPORTER_UNIT, read))
    return made


def edge_sshd_options(layout: EdgeLayout) -> str:
    """A drop-in of the machine's own sshd: the edge's account, and nobody else's."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
    session = session_options(["none"], environment)
    # In a Match block the first value counts.
    own = (f'AuthorizedKeysFile "{layout.etc("authorized_keys")}"', *RECEIVES_ONLY, *session)
    lines = [WRITTEN, MAX_STARTUPS, f"Match User {layout.ssh.user}", *(f"    {one}" for one in own)]
    return "\n".join([*lines, ""])
