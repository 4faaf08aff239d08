"""The manifest of a package: its name and version, its files, its lineage and its gates' verdicts.

Its canonical bytes are what the release identity signs; their sha256 is the version's digest.
Reading is strict: an unknown, missing or mistyped field is refused with a sentence, so that a
manifest of another format is never half understood.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from conf.errors import REFUSED, LockgateError
from conf.schema import SchemaError, build
from serving.artifact.digest import bytes_sha256, canonical_json, file_sha256
from serving.artifact.lineage import Lineage
from serving.artifact.tensors import TensorSpec
from serving.artifact.verify import FORMAT, MANIFEST, SIGNATURE, plain_files, safe_path


class ManifestError(LockgateError, SchemaError):
    """A manifest cannot be understood; the message has the place and the expected value."""

    exit_code = REFUSED


@dataclass(frozen=True)
class FileEntry:
    """One file of the package: its posix path, its sha256 in hex and its size in bytes."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class GateRecord:
    """A gate's verdict: `value` against `threshold` in the gate's unit, None where it has none."""

    name: str
    verdict: Literal["pass", "fail", "unknown"]
    required: bool
    value: float | None
    threshold: float | None
    detail: str


@dataclass(frozen=True)
class Manifest:
    """Everything that is signed. `previous` is the version in production when this was released:
    the one to go back to."""

    format: str
    model: str
    version: int
    task: str
    created: str
    files: tuple[FileEntry, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    transform_digest: str
    lineage: Lineage
    requires: dict[str, str]
    metrics: dict[str, float]
    gates: tuple[GateRecord, ...]
    previous: int | None = None

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ManifestError(f"format is {self.format!r}; this code knows {FORMAT!r}")
        if self.version < 1:
            raise ManifestError(f"version is {self.version}; versions count from 1")
        paths = [entry.path for entry in self.files]
        unsafe = [path for path in paths if not safe_path(path)]
        if unsafe or len(set(paths)) != len(paths):
            problem = f"the unsafe path {unsafe[0]!r}" if unsafe else "a path twice"
            raise ManifestError(f"files lists {problem}")

    def to_bytes(self) -> bytes:
        """The canonical bytes: what is written, signed and hashed."""
        return canonical_json(asdict(self))

    @property
    def digest(self) -> str:
        """The version's digest: sha256 of the canonical bytes, in hex."""
        return bytes_sha256(self.to_bytes())


def parse_manifest(data: bytes, where: str = MANIFEST) -> Manifest:
    """Read a manifest's bytes. Raises ManifestError, which names `where`, for all but our format.

    The bytes must be canonical: what is signed has one spelling.
    """
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ManifestError(f"{where} is not JSON: {error}") from None
    try:
        manifest: Manifest = build(Manifest, content)
    except SchemaError as error:
        raise ManifestError(f"{where}: {error}") from None
    if manifest.to_bytes() != data:
        raise ManifestError(f"{where} is not in canonical form (sorted keys, two spaces, UTF-8)")
    return manifest


def read_manifest(package: Path) -> Manifest:
    """The manifest of a package folder. Raises ManifestError; proves nothing about the files."""
    path = Path(package) / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"{package} has no {MANIFEST}: it is not a package") from None
    return parse_manifest(data, str(path))


def list_files(directory: Path) -> tuple[FileEntry, ...]:
    """Every file under `directory` as a manifest lists it: sorted, itself and signature left out.

    Raises ManifestError for a name that a package may not hold, `verify.Refused` for a link.
    """
    entries = []
    for name, path in plain_files(directory):
        if name in (MANIFEST, SIGNATURE):
            continue
        if not safe_path(name):
            raise ManifestError(f"{name!r} cannot be packaged: use letters, digits and _ . + -")
        entries.append(FileEntry(name, file_sha256(path), path.stat().st_size))
    return tuple(entries)
