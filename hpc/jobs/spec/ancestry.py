"""The checkpoint that a run begins with, of another run: what is frozen about it in the spec.

A snapshot without this file is of code that would overlook both and begin at nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

FILE = "hpc/jobs/spec/ancestry.py"
"""This file in a source snapshot."""


@dataclass(frozen=True)
class Parent:
    """The run that a resumed run goes on from; its checkpoint lies in the new run's folder."""

    run: str
    spec_digest: str
    step: int
    """Steps done; the new run's first one is the next."""
    checkpoint: str
    """sha256 of the checkpoint's manifest, which holds those of all its files."""
    changed: dict[str, list[object]]
    """Dotted key -> [value of the parent, value now]."""
    source: str
    """`run` for the parent's own snapshot, `current` for the code as it stood at `resume`."""

    @property
    def words(self) -> str:
        """`RUN@STEP`."""
        return f"{self.run}@{self.step}"


@dataclass(frozen=True)
class InitialWeights:
    """The weights of another run's checkpoint that a run starts with, at its step 0."""

    run: str
    step: int
    path: str
    """Absolute path of the safetensors file."""
    sha256: str

    @property
    def words(self) -> str:
        """`RUN@STEP`, as in init_from."""
        return f"{self.run}@{self.step}"
