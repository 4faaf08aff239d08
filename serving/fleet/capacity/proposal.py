"""A placement for people: the YAML for the site's file, what moves, and the commands in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conf.site_placement import Isolation, ModelPlacement, Placement, hosts_alone, hosts_of


@dataclass(frozen=True)
class ModelMove:
    """The hosts that a model comes to, and those that it leaves; neither where nothing moves."""

    model: str
    comes_to: tuple[str, ...]
    leaves: tuple[str, ...]

    @property
    def is_none(self) -> bool:
        """True where every host stays."""
        return not self.comes_to and not self.leaves


def proposed(
    hosts: Sequence[str],
    assigned: Mapping[str, tuple[str, ...]],
    isolation: Mapping[str, Isolation],
    configured: Placement,
) -> dict[str, ModelPlacement]:
    """The entries that `site.placement` needs for `assigned`; `hosts` are all there are.

    A shared model on every host that no `alone` model has needs none. Models that nothing is known
    of keep theirs.
    """
    entries = {name: one for name, one in configured.items() if name not in assigned}
    for name, own in assigned.items():
        if isolation[name] == "alone":
            entries[name] = ModelPlacement(own, "alone")
    free = [host for host in hosts if host not in hosts_alone(entries)]
    for name, own in assigned.items():
        if isolation[name] == "shared" and set(own) != set(free):
            entries[name] = ModelPlacement(own)
    return dict(sorted(entries.items()))


def moves(
    models: Sequence[str], hosts: Sequence[str], before: Placement, after: Placement
) -> list[ModelMove]:
    """The move of each model from one placement to another."""
    found = []
    for model in models:
        had, has = hosts_of(before, model, hosts), hosts_of(after, model, hosts)
        found.append(
            ModelMove(
                model,
                tuple(host for host in has if host not in had),
                tuple(host for host in had if host not in has),
            )
        )
    return found


def placement_yaml(placement: Placement) -> list[str]:
    """The lines of the site's file."""
    if not placement:
        return ["placement: {}"]
    return [
        "placement:",
        *(
            f"  {name}: {{isolation: {one.isolation}, hosts: [{', '.join(one.hosts)}]}}"
            for name, one in placement.items()
        ),
    ]


def steps(moved: Sequence[ModelMove]) -> list[str]:
    """The commands that bring a fleet there, in the order in which no request finds a host without
    its model."""
    come = [f"fab heal --model {one.model}" for one in moved if one.comes_to]
    leave = [f"fab heal --model {one.model}" for one in moved if one.leaves]
    if not come and not leave:
        return ["Nothing moves."]
    order = [
        ("put these lines into the site's file, in the place of its placement", []),
        ("new hosts come up, and get no request yet", come),
        ("requests go where the models are", ["fab edges --roll, of this machine scripts/site up"]),
        ("the hosts that a model left give up its memory", leave),
    ]
    kept = [(why, commands) for n, (why, commands) in enumerate(order) if commands or not n]
    return [
        f"{number}. {why}{': ' if commands else '.'}{'; '.join(commands)}"
        for number, (why, commands) in enumerate(kept, 1)
    ]
