"""A serving host and an edge as values that a simulated rollout changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from serving.fleet.rollout.driver import HostVerification
from serving.fleet.rollout.records import Before
from serving.fleet.routing import Routing
from serving.triton import model_config


@dataclass
class Late:
    """A change that SSH broke off and Triton still makes: it lands after `reads` more reads."""

    reads: int
    version: int | None
    land: Callable[[SimulatedHost], None]


@dataclass
class SimulatedHost:
    """A host. `proven` are the versions whose golden examples were equal since they were loaded.

    `scaled` is the number of instances that it was given (None: as packaged), `loaded` the one that
    its Triton has, `max_instances` the most that it takes. `dead` are versions whose Python stub
    died: ready, and every answer is wrong until Triton is restarted; those in `doomed` die again.
    `stuck` are versions that stay UNLOADING until then.
    """

    serving: tuple[int, ...]
    config: str | None
    edge: str = "ready"
    packages: dict[int, str] = field(default_factory=dict)
    installed: set[int] = field(default_factory=set)
    alive: bool = True
    highest: int = 0
    fence: int = 0
    reachable: bool = True
    proven: set[int] = field(default_factory=set)
    dead: set[int] = field(default_factory=set)
    doomed: set[int] = field(default_factory=set)
    stuck: set[int] = field(default_factory=set)
    sticky: set[int] = field(default_factory=set)
    tampered: set[int] = field(default_factory=set)
    late: Late | None = None
    restarts: int = 0
    scaled: int | None = None
    loaded: int = 1
    max_instances: int = 8

    def as_it_is(self) -> Before:
        """The host as a rollout's undo knows it."""
        return Before(self.serving, self.config, self.edge)

    def takes_traffic(self) -> bool:
        """True when an edge gives it new requests."""
        return self.edge == "ready" and self.alive

    def answers(self, version: int) -> bool:
        """True when a request for `version` gets the right answer."""
        return self.alive and version in self.serving and version not in self.dead

    def serve(self, versions: tuple[int, ...]) -> None:
        """Load and unload until exactly `versions` are ready; one in `sticky` stays UNLOADING."""
        gone = set(self.serving) - set(versions)
        self.stuck |= gone & self.sticky
        self.proven &= set(versions) & set(self.serving)
        self.serving = tuple(sorted(versions))

    def restart(self) -> None:
        """Start again from the config: nothing is proven, and no stub is dead but doomed ones."""
        self.alive, self.restarts = True, self.restarts + 1
        self.serving = model_config.versions_in(self.config)
        self.loaded = model_config.instances_in(self.config) if self.config else 1
        self.proven, self.dead = set(), set(self.doomed)
        self.stuck, self.sticky, self.late = set(), set(), None

    def unready(self) -> tuple[tuple[int, str], ...]:
        """Versions in another state than READY, as Triton lists them."""
        found = [(version, "UNLOADING") for version in sorted(self.stuck)]
        if self.late and self.late.version is not None:
            found.append((self.late.version, "LOADING"))
        return tuple(found)

    def verification(self) -> HostVerification:
        """Its verification of this moment."""
        faults = tuple(
            f"toy/{version} in its repository: changed-file: model.py has another sha256"
            for version in sorted(self.tampered)
        )
        return HostVerification("2026-01-01T00:00:00+00:00", not faults, faults)


@dataclass
class SimulatedEdge:
    """An edge of a region with its routing; `requests` and `errors` count by version.

    `departed` are hosts that it sends requests to and that the fleet does not have.
    """

    region: str
    routing: Routing = field(default_factory=Routing)
    reachable: bool = True
    departed: set[str] = field(default_factory=set)
    requests: dict[int, int] = field(default_factory=dict)
    errors: dict[int, int] = field(default_factory=dict)
