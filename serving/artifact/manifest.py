"""The manifest of a package: what it is, what is in it, where it came from, what it passed.

Its canonical bytes are what the release identity signs; their sha256 is the version's digest.
Reading is strict: an unknown, missing or mistyped field is refused with a sentence, so that a
manifest of another format is never half understood.
"""

from __future__ import annotations

import json
import math
import types
import typing
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from serving.artifact.digest import bytes_sha256, canonical_json, file_sha256
from serving.artifact.verify import FORMAT, MANIFEST, SIGNATURE, plain_files, safe_path

#: The types of a tensor that both Triton and this code name the same.
DTYPES = ("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "FP32", "FP64", "BYTES")


class ManifestError(ValueError):
    """A manifest cannot be understood; the message says where and what was expected."""


@dataclass(frozen=True)
class FileEntry:
    """One file of the package: its posix path, its sha256 in hex and its size in bytes."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Tensor:
    """One input or output: Triton's name for its dtype; `shape` with -1 where the size is free."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class DatasetRef:
    """The dataset a run was trained on, by name and digest."""

    name: str
    digest: str


@dataclass(frozen=True)
class Lineage:
    """Where a package came from: each digest can be recomputed from what the run left."""

    run: str
    spec_digest: str
    source_digest: str
    dataset: DatasetRef


@dataclass(frozen=True)
class GateRecord:
    """What a gate said: `value` against `threshold` in the gate's unit, None where it has none."""

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
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
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
        for tensor in (*self.inputs, *self.outputs):
            if tensor.dtype not in DTYPES:
                known = ", ".join(DTYPES)
                raise ManifestError(f"{tensor.name} has dtype {tensor.dtype!r}, not one of {known}")

    def to_bytes(self) -> bytes:
        """The canonical bytes: what is written, signed and hashed."""
        return canonical_json(asdict(self))

    @property
    def digest(self) -> str:
        """The version's digest: sha256 of the canonical bytes, in hex."""
        return bytes_sha256(self.to_bytes())


def parse(data: bytes, where: str = MANIFEST) -> Manifest:
    """Read a manifest's bytes. Raises ManifestError, which names `where`, for all but our format.

    The bytes must be canonical: what is signed has one spelling.
    """
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ManifestError(f"{where} is not JSON: {error}") from None
    try:
        manifest: Manifest = build(Manifest, content)
    except ManifestError as error:
        raise ManifestError(f"{where}: {error}") from None
    if manifest.to_bytes() != data:
        raise ManifestError(f"{where} is not in canonical form (sorted keys, two spaces, UTF-8)")
    return manifest


def load(package: Path) -> Manifest:
    """The manifest of a package folder. Raises ManifestError; proves nothing about the files."""
    path = Path(package) / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"{package} has no {MANIFEST}: it is not a package") from None
    return parse(data, str(path))


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


def build(kind: Any, value: object, where: str = "") -> Any:
    """Make a `kind` (dataclass, tuple, dict, Literal, optional or plain type) of parsed JSON.

    Raises ManifestError naming the place, what was expected and what was found. A number without
    a fraction is a valid float; nothing else is converted.
    """
    if is_dataclass(kind):
        return _build_dataclass(typing.cast(type, kind), value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        items = _expect(value, list, "a list", where)
        return tuple(build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        items = _expect(value, dict, "an object", where)
        return {key: build(arguments[1], item, _join(where, key)) for key, item in items.items()}
    if origin is Literal:
        if value not in arguments:
            raise ManifestError(f"{where} is {value!r}, not one of {', '.join(arguments)}")
        return value
    if origin is types.UnionType:
        present = next(option for option in arguments if option is not types.NoneType)
        return None if value is None else build(present, value, where)
    if kind is float and type(value) in (int, float):
        number = float(typing.cast(float, value))
        if not math.isfinite(number):
            raise ManifestError(f"{where} is {number}, not a finite number")
        return number
    return _expect(value, kind, f"of type {kind.__name__}", where)


def _build_dataclass(kind: type, value: object, where: str) -> Any:
    content = _expect(value, dict, "an object", where)
    known = {field.name: field for field in fields(kind)}
    for key in content:
        if key not in known:
            raise ManifestError(f"{_join(where, key)} is unknown here; known: {', '.join(known)}")
    hints = typing.get_type_hints(kind)
    for name, field in known.items():
        if name not in content and field.default is MISSING and field.default_factory is MISSING:
            raise ManifestError(f"{_join(where, name)} is missing")
    return kind(
        **{key: build(hints[key], item, _join(where, key)) for key, item in content.items()}
    )


def _expect(value: object, kind: type, wanted: str, where: str) -> Any:
    if type(value) is not kind:
        raise ManifestError(f"{where or 'the whole'} is {_brief(value)}, not {wanted}")
    return value


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
