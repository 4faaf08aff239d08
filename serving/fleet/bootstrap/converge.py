"""The way of a host to its wanted facts: compare, show, make in order, and see that it serves.

Whatever ends it half-way, the next run compares again and goes on; each fact is made whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from serving.fleet.bootstrap.changes import HostChange, host_changes, restarts_triton
from serving.fleet.bootstrap.facts import HostBinary, HostEnvironment, HostFact
from serving.fleet.bootstrap.root_shell import RootShell
from serving.fleet.errors import FleetError, FleetRefusal
from serving.fleet.inventory import Host, Ssh
from serving.fleet.ssh.connection import open_shell
from serving.fleet.ssh.triton import triton_is_live
from serving.fleet.ssh.verbs import HostVerbs

Report = Callable[[str, str], None]
"""Takes a step and its detail, for people."""

_VERIFY_S = 900.0


def planned_changes(root: RootShell, facts: Sequence[HostFact]) -> list[HostChange]:
    """The changes that the host needs; reads it and changes nothing."""
    return host_changes(facts, root.compare(facts))


def converge(
    root: RootShell, facts: Sequence[HostFact], source: Path, restart: bool, report: Report
) -> list[HostChange]:
    """Make what differs; returns the changes. Raises FleetError at the first that fails.

    `source` is the wheelhouse, or the one program of it that the machine gets. Without `restart` a
    Triton that runs is not restarted: raises FleetRefusal, nothing changed.
    """
    changes = planned_changes(root, facts)
    reason = restarts_triton(changes)
    if reason and not restart:
        name = root.shell.host.name
        raise FleetRefusal(
            f"{name}: its Triton would restart ({reason}). Nothing was changed. Take it out of "
            f"traffic, then type: fab bootstrap {name} --restart"
        )
    sent = False
    for change in changes:
        fact = change.fact
        if isinstance(fact, HostBinary | HostEnvironment) and not sent:
            target = fact.wheels if isinstance(fact, HostEnvironment) else Path(fact.source).parent
            size = root.send(source, str(target))
            report(source.name, f"{size / (1 << 20):.1f} MiB sent")
            sent = True
        root.make(fact)
        report(fact.title, change.reason)
    return changes


def see_serving(host: Host, ssh: Ssh, timeout_s: float) -> str:
    """Wait until the host answers the deploy identity as a serving host; returns a sentence.

    sshd takes the deploy key and answers the verbs, Triton is live, what it has is verified.
    Raises FleetError, Unreachable for what is missing after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    shell = open_shell(host, ssh)
    try:
        record = HostVerbs(shell).call("verify", "all", timeout_s=_VERIFY_S)
        if record["faults"]:
            raise FleetError(
                f"{host.name}: {len(record['faults'])} faults in what it has, the first: "
                f"{record['faults'][0]}. fab heal brings back what was verified."
            )
        while not triton_is_live(shell):
            if time.monotonic() > deadline:
                raise FleetError(
                    f"{host.name}: its Triton is not live after {timeout_s:g} s "
                    "(bootstrap.start_timeout_s). See there: journalctl -u lockgate-triton"
                )
            time.sleep(0.2)
    finally:
        shell.close()
    return f"{host.name} serves: sshd answers {ssh.user}, Triton is live, what it has is verified"
