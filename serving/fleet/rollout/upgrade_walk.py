"""The walk of an upgrade over machines: one after another, each journalled before it is touched.

Killed anywhere and begun again it goes on: a machine that was left half-way comes first, and is
given back to the edges that gave it traffic before, once it serves what it served before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from conf.errors import INCOMPLETE
from serving.fleet.errors import FleetError, FleetRefusal
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.lease import Lease, LeaseLost
from serving.fleet.rollout.upgrades import (
    DONE,
    ENDED,
    STARTED,
    UPGRADED,
    UPGRADING,
    OpenUpgrade,
    ServiceBefore,
    Serving,
)


class UpgradeStopped(FleetError):
    """A machine was left half-way; those before it are upgraded, those after it as before."""

    exit_code = INCOMPLETE


class MachineUpgrade(Protocol):
    """One machine of a walk. Every method raises FleetError or OSError."""

    @property
    def name(self) -> str:
        """Its name in the site."""

    @property
    def digests(self) -> tuple[str, str]:
        """Of what it runs now, and of what it will run."""

    def serving(self) -> Serving:
        """The versions that it serves now."""

    def edges(self) -> tuple[str, ...]:
        """The edges that give it traffic now."""

    def refuse_last(self) -> None:
        """Raises FleetRefusal where nobody else would be in traffic."""

    def take_out(self) -> None:
        """Take it out of traffic at every edge; return when it is idle."""

    def make(self) -> None:
        """Make it as wanted, and wait until it runs."""

    def prove(self, before: Serving) -> None:
        """See that it serves `before`, and rightly."""

    def give_back(self, edges: Sequence[str]) -> None:
        """Have these edges give it traffic; return when they find it up."""


@dataclass(frozen=True)
class UpgradeWalk:
    """An upgrade that is carried out under `lease`."""

    upgrade: str
    journal: Journal
    lease: Lease

    def run(
        self, machines: Sequence[MachineUpgrade], found: OpenUpgrade | None, reason: str
    ) -> None:
        """Upgrade `machines` in their order, those that `found` left among them.

        Raises UpgradeStopped for one that is left half-way, FleetRefusal for one that must not be
        touched, LeaseLost.
        """
        names = [machine.name for machine in machines]
        resumes = found.record.upgrade if found else None
        self.journal.record(STARTED, self.upgrade, hosts=names, reason=reason, resumes=resumes)
        left = found.left if found else {}
        for number, machine in enumerate(machines):
            self.lease.check()
            try:
                machine.refuse_last()
            except FleetRefusal as error:
                self._end("incomplete" if number else "refused", str(error))
                raise
            try:
                self._upgrade(machine, left)
            except LeaseLost:
                raise  # what happens next is the other controller's to write down
            except (FleetError, OSError) as error:
                self._end("incomplete", f"{machine.name}: {error}")
                raise UpgradeStopped(_stopped(str(error), names, number)) from error
        self._end(DONE, "")

    def _upgrade(self, machine: MachineUpgrade, left: Mapping[str, ServiceBefore]) -> None:
        was = left.get(machine.name)
        # What an earlier upgrade found counts: the machine may be down by now, or out of traffic.
        serving = was.serving if was else machine.serving()
        edges = list(dict.fromkeys([*(was.edges if was else ()), *machine.edges()]))
        before, after = machine.digests
        self.journal.record(
            UPGRADING, self.upgrade, host=machine.name, edges=edges,
            serving={model: list(versions) for model, versions in serving.items()},
            **{"from": before, "to": after},
        )  # fmt: skip
        machine.take_out()
        self.lease.check()
        machine.make()
        machine.prove(serving)
        self.lease.check()
        machine.give_back(edges)
        self.journal.record(UPGRADED, self.upgrade, host=machine.name)

    def _end(self, outcome: str, detail: str) -> None:
        self.journal.record(ENDED, self.upgrade, outcome=outcome, detail=detail)


def _stopped(error: str, names: Sequence[str], number: int) -> str:
    done = ", ".join(names[:number]) or "none"
    return (
        f"{error} {names[number]} was left half-way; upgraded before it: {done}; the others are as "
        f"they were. Mend it and go on: fab upgrade --hosts {','.join(names[number:])}"
    )
