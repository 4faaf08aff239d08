"""What a package may hold and must say: no pickles, bounded size, a compatible interface, lineage.

Every check reads the staged files only; nothing is imported, unpacked or unpickled.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion

from serving.artifact.digest import file_sha256
from serving.artifact.manifest import GateRecord, Manifest
from serving.artifact.tensors import TensorSpec
from serving.release.candidate import Staged
from serving.release.gate import at_most, holds, unknown

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "gzip data",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"7z\xbc\xaf": "a 7z archive",
}
#: How much of a file is read as a pickle program, in bytes.
_MAX_TEXT_PICKLE = 8 << 20


@dataclass(frozen=True)
class HygieneGate:
    """`conf/gates/*.yaml: hygiene`."""

    required: bool
    suffixes: tuple[str, ...]
    max_bytes: int
    files: tuple[str, ...]


NAMES = ("hygiene.contents", "hygiene.size", "hygiene.lineage")


def judge(gate: HygieneGate, staged: Staged) -> Iterator[GateRecord]:
    """What is in the package, how large it is, and whether its lineage is complete."""
    problems = list(_problems(gate, staged))
    detail = "; ".join(problems[:3]) or f"{len(staged.files)} files, no pickle, no archive"
    yield holds("hygiene.contents", not problems, detail)
    total = sum(entry.bytes for entry in staged.files)
    yield at_most("hygiene.size", total, gate.max_bytes, "bytes")
    gaps = _lineage_gaps(staged)
    detail = (
        "; ".join(gaps)
        or f"run {staged.candidate.lineage.run}, dataset, source, spec and transform"
    )
    yield holds("hygiene.lineage", not gaps, detail)


def pickle_kind(path: Path) -> str:
    """What makes `path` dangerous to load, as in "a pickle"; empty when nothing does.

    By content, whatever its name is: binary and text pickles, archives (which may hold them), and
    numpy files of objects.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    for magic, kind in _ARCHIVES.items():
        if head.startswith(magic):
            return kind
    if zipfile.is_zipfile(path):
        return "a zip archive behind something else"
    if head.startswith(b"\x93NUMPY") and b"'|O'" in head:
        return "a numpy file of pickled objects"
    if (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05") or _reads_as_pickle(path):
        return "a pickle"
    return ""


def interface_breaks(old: Manifest, new: Staged) -> list[str]:
    """What a client of `old` would notice; none when every request that worked still works."""
    found = []
    pairs = (
        ("input", old.inputs, new.candidate.inputs),
        ("output", old.outputs, new.candidate.outputs),
    )
    for kind, before, after in pairs:
        now = {tensor.name: tensor for tensor in after}
        for tensor in before:
            if tensor.name not in now:
                found.append(f"{kind} {tensor.name} is gone")
            elif not _takes(now[tensor.name], tensor):
                found.append(
                    f"{kind} {tensor.name} was {_shape(tensor)}, is {_shape(now[tensor.name])}"
                )
    known = {tensor.name for tensor in old.inputs}
    added = [
        tensor.name
        for tensor in new.candidate.inputs
        if tensor.name not in known and not tensor.optional
    ]
    return found + [f"input {name} is new and clients do not send it" for name in added]


def interface_served(declared: Staged, metadata: Mapping[str, Any]) -> list[str]:
    """Where what Triton serves is not what candidate.json declares."""
    found = []
    sides = (("inputs", declared.candidate.inputs), ("outputs", declared.candidate.outputs))
    for key, tensors in sides:
        served = {
            tensor["name"]: (tensor["datatype"], tuple(int(size) for size in tensor["shape"]))
            for tensor in metadata[key]
        }
        said = {tensor.name: (tensor.dtype, tensor.shape) for tensor in tensors}
        for name in sorted(served.keys() | said.keys()):
            if served.get(name) != said.get(name):
                found.append(f"{key} {name}: declared {said.get(name)}, served {served.get(name)}")
    return found


def requirements(requires: Mapping[str, str], have: Mapping[str, str]) -> Iterator[GateRecord]:
    """One gate: every requirement is satisfied by the serving environment's versions `have`."""
    unmet: list[str] = []
    met: list[str] = []
    for name, wanted in sorted(requires.items()):
        if name not in have:
            yield unknown("hygiene.requires", f"{name} {wanted}: no such thing is known here")
            return
        spec = wanted if wanted[:1] in "<>=!~" else f"=={wanted}.*"
        try:
            good = SpecifierSet(spec).contains(have[name], prereleases=True)
        except (InvalidSpecifier, InvalidVersion) as error:
            yield unknown("hygiene.requires", f"{name} {wanted}: {error}")
            return
        (met if good else unmet).append(f"{name} {have[name]} (wants {wanted})")
    yield holds("hygiene.requires", not unmet, "; ".join(unmet or met))


def _problems(gate: HygieneGate, staged: Staged) -> Iterator[str]:
    paths = {entry.path for entry in staged.files}
    for name in gate.files:
        if name not in paths:
            yield f"{name} is missing"
    for entry in staged.files:
        if PurePosixPath(entry.path).suffix not in gate.suffixes:
            allowed = " ".join(gate.suffixes)
            yield f"{entry.path} is of no kind that a package may hold ({allowed})"
        elif kind := pickle_kind(staged.folder / entry.path):
            yield f"{entry.path} is {kind}"


def _lineage_gaps(staged: Staged) -> list[str]:
    candidate = staged.candidate
    digests = {
        "spec_digest": candidate.lineage.spec_digest,
        "source_digest": candidate.lineage.source_digest,
        "dataset.digest": candidate.lineage.dataset.digest,
        "transform_digest": candidate.transform_digest,
    }
    gaps = [
        f"{name} is {value!r}, not a sha256"
        for name, value in digests.items()
        if not _DIGEST.match(value)
    ]
    transform = staged.folder / "version/transform.json"
    if transform.is_file() and file_sha256(transform) != candidate.transform_digest:
        gaps.append("transform_digest is not the sha256 of version/transform.json")
    return gaps + ([] if candidate.lineage.run else ["run is empty"])


def _reads_as_pickle(path: Path) -> bool:
    """Whether the file begins with a valid pickle program of more than a STOP.

    What follows the STOP does not matter: unpickling would not look at it.
    """
    with path.open("rb") as file:
        data = file.read(_MAX_TEXT_PICKLE)
    try:
        return sum(1 for _ in pickletools.genops(data)) > 1
    except Exception:  # noqa: BLE001 - the parser raises many kinds for what is no pickle
        return False


def _shape(tensor: TensorSpec) -> str:
    return f"{'optional ' * tensor.optional}{tensor.dtype}{list(tensor.shape)}"


def _takes(now: TensorSpec, before: TensorSpec) -> bool:
    """Whether every use of `before` is one of `now`; a required input may become optional."""
    same = (now.dtype, now.shape) == (before.dtype, before.shape)
    return same and (now.optional or not before.optional)
