"""The Python environment of a run: the interpreter and every installed package."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from importlib.metadata import Distribution, distributions

from hpc.jobs.spec.job_spec import Environment
from serving.artifact.digest import bytes_sha256

_FIELDS = ("Name", "Version")
_FIELD = re.compile(rf"^({'|'.join(_FIELDS)}):[ \t]*(\S+)", re.MULTILINE)
# https://packaging.python.org/en/latest/specifications/core-metadata


def installed_packages() -> list[str]:
    """`name==version` of every installed package, in one order; this repository is not one."""
    found = {line for item in distributions() if (line := _line(item))}
    return sorted(line for line in found if not line.startswith("lockgate=="))


def _line(item: Distribution) -> str | None:
    """`name==version` from the head of the metadata; None for a folder that is no package.

    Its own attributes parse the whole file as a mail, the package's README included, which takes
    most of a submit's time for some 170 packages.
    """
    text = item.read_text("METADATA") or item.read_text("PKG-INFO") or ""
    head = dict(_FIELD.findall(text.partition("\n\n")[0]))
    return f"{head['Name'].lower()}=={head['Version']}" if len(head) == len(_FIELDS) else None


def environment_of(packages: Sequence[str]) -> Environment:
    """The digest that a spec records of `packages` and this interpreter."""
    python = platform.python_version()
    return Environment(python=python, digest=bytes_sha256("\n".join([python, *packages]).encode()))
