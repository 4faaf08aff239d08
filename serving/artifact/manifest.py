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
from serving.artifact.verify import BESIDE, FORMAT, MANIFEST, parse_time, plain_files, safe_path


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
    """Everything that is signed.

    `code` are the paths of those files that are the task's own code, neither Triton's entry nor the
    runtime as Lockgate ships it. `created` and `expires` are UTC, as in 2026-01-31T23:59:59Z; from
    `expires` on no host accepts the package. `previous` is the version in production when this was
    released: the one to go back to.
    """

    format: str
    model: str
    version: int
    task: str
    created: str
    expires: str
    files: tuple[FileEntry, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    transform_digest: str
    lineage: Lineage
    requires: dict[str, str]
    metrics: dict[str, float]
    gates: tuple[GateRecord, ...]
    previous: int | None = None
    code: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ManifestError(f"format is {self.format!r}; this code knows {FORMAT!r}")
        if self.version < 1:
            raise ManifestError(f"version is {self.version}; versions count from 1")
        try:
            lasts = parse_time(self.created) < parse_time(self.expires)
        except ValueError as error:
            raise ManifestError(f"created or expires: {error}") from None
        if not lasts:
            raise ManifestError(f"expires is {self.expires}, not after {self.created}")
        paths = [entry.path for entry in self.files]
        unsafe = [path for path in paths if not safe_path(path)]
        if unsafe or len(set(paths)) != len(paths):
            problem = f"the unsafe path {unsafe[0]!r}" if unsafe else "a path twice"
            raise ManifestError(f"files lists {problem}")
        absent = [path for path in self.code if path not in paths]
        if absent:
            raise ManifestError(f"code lists {absent[0]!r}, which is not one of the files")

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
    except (ValueError, RecursionError) as error:  # a deep one is not ours either
        raise ManifestError(f"{where} is not JSON: {error}") from None
    _check_format(content, where)
    try:
        manifest: Manifest = build(Manifest, content)
    except SchemaError as error:
        raise ManifestError(f"{where}: {error}") from None
    if manifest.to_bytes() != data:
        raise ManifestError(f"{where} is not in canonical form (sorted keys, two spaces, UTF-8)")
    return manifest


def _check_format(content: object, where: str) -> None:
    """Raises ManifestError for a manifest of an earlier Lockgate, with the commands to type."""
    if not isinstance(content, dict) or content.get("format") != "lockgate-package/1":
        return
    lineage = content.get("lineage")
    run = lineage.get("run") if isinstance(lineage, dict) else None
    run = run if safe_path(run) else "RUN"
    raise ManifestError(
        f"{where} has format 'lockgate-package/1', of an earlier Lockgate; this one reads "
        f"{FORMAT!r}, whose packages expire. Move that version's folder out of the store, then "
        f"release its run again: lockgate release run={run}"
    )


def read_manifest(package: Path) -> Manifest:
    """The manifest of a package folder. Raises ManifestError; proves nothing about the files."""
    path = Path(package) / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"{package} has no {MANIFEST}: it is not a package") from None
    return parse_manifest(data, str(path))


def list_files(directory: Path) -> tuple[FileEntry, ...]:
    """Every file under `directory` as a manifest lists it: sorted, itself and signatures left out.

    Raises ManifestError for a name that a package may not hold, `verify.Refused` for a link.
    """
    entries = []
    for name, path in plain_files(directory):
        if name in BESIDE:
            continue
        if not safe_path(name):
            raise ManifestError(f"{name!r} cannot be packaged: use letters, digits and _ . + -")
        entries.append(FileEntry(name, file_sha256(path), path.stat().st_size))
    return tuple(entries)
