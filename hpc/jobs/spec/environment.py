"""The Python environment of a run: the interpreter and every installed package."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import distributions

from hpc.jobs.spec.job_spec import Environment
from serving.artifact.digest import bytes_sha256


def installed_packages() -> list[str]:
    """`name==version` of every installed package, in one order; this repository is not one."""
    # A distribution's `name` and `version` each parse its whole file of metadata.
    known = (item.metadata for item in distributions())
    found = {f"{one['Name'].lower()}=={one['Version']}" for one in known if one["Name"]}
    return sorted(line for line in found if not line.startswith("lockgate=="))


def environment_of(packages: Sequence[str]) -> Environment:
    """The digest that a spec records of `packages` and this interpreter."""
    python = platform.python_version()
    return Environment(python=python, digest=bytes_sha256("\n".join([python, *packages]).encode()))
