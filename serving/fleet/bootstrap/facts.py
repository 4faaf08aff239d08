"""The kinds of facts that a machine of ours consists of. Values: `host_side` reads and makes them.

The order of a list of facts is the order in which they are made; a later one may build on an
earlier one. Paths are those of the host.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class HostInterpreter:
    """The python3 of the distribution, `version` such as 3.11. It is never made, only checked."""

    version: str

    @property
    def title(self) -> str:
        return f"python {self.version}"


@dataclass(frozen=True)
class HostPackages:
    """Packages of the distribution that are installed; from its mirror, where one is missing."""

    names: tuple[str, ...]

    @property
    def title(self) -> str:
        return "packages"


@dataclass(frozen=True)
class HostGroup:
    """A system group."""

    name: str

    @property
    def title(self) -> str:
        return f"group {self.name}"


@dataclass(frozen=True)
class HostAccount:
    """A system account without a password and without a home; `groups` beside its own, no other."""

    name: str
    shell: str
    groups: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"account {self.name}"


@dataclass(frozen=True)
class HostFolder:
    """A folder with its owner and mode."""

    path: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o755

    @property
    def title(self) -> str:
        return f"folder {self.path}"


@dataclass(frozen=True)
class HostFile:
    """A file. `check` is a command that must succeed with it; else the old one is put back."""

    path: str
    text: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    check: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"file {self.path}"


@dataclass(frozen=True)
class HostFirstFile:
    """A file that is there: made with this text where it is missing, and from then on left to
    those who write it. `check` is a command that must succeed with it; else it is taken away."""

    path: str
    text: str
    owner: str
    group: str
    mode: int = 0o644
    check: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"file {self.path}"


@dataclass(frozen=True)
class HostTree:
    """A folder of root's with exactly these files (path below it -> text), replaced as one."""

    path: str
    files: dict[str, str]

    @property
    def title(self) -> str:
        return f"programs {self.path}"


@dataclass(frozen=True)
class HostEnvironment:
    """The serving environment: `path` is a link to the folder made of exactly these wheels.

    `wheels` is the folder where they lie on the host, `requirements` the list of them with their
    digests, `digest` the name of that list. `finish` is a command that completes the environment.
    """

    path: str
    wheels: str
    requirements: str
    digest: str
    finish: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"environment {self.path}"


@dataclass(frozen=True)
class HostImage:
    """An image of a container, named by its digest; pulled from its registry where missing."""

    name: str

    @property
    def title(self) -> str:
        return f"image {self.name}"


@dataclass(frozen=True)
class HostBinary:
    """A program of root's, copied on the host from `source`, with this sha256."""

    path: str
    source: str
    digest: str

    @property
    def title(self) -> str:
        return f"program {self.path}"


@dataclass(frozen=True)
class HostUnit:
    """A unit of systemd that runs, with its `files` as they are now.

    `action`, restart or reload, is how it takes up a file that changed after it started. One that
    is `ours` is also enabled at boot; else it is the distribution's.
    """

    name: str
    files: tuple[str, ...]
    action: str = "restart"
    ours: bool = True

    @property
    def title(self) -> str:
        return f"unit {self.name}"


@dataclass(frozen=True)
class HostUnitOff:
    """A unit of a distribution's package that neither runs nor starts at boot."""

    name: str

    @property
    def title(self) -> str:
        return f"unit {self.name}"


HostFact = (
    HostInterpreter
    | HostPackages
    | HostGroup
    | HostAccount
    | HostFolder
    | HostFile
    | HostFirstFile
    | HostTree
    | HostBinary
    | HostEnvironment
    | HostImage
    | HostUnit
    | HostUnitOff
)


def fact_values(fact: HostFact) -> dict[str, Any]:
    """`fact` as plain values for the host's side."""
    return {"kind": type(fact).__name__, **asdict(fact)}
