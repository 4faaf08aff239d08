"""The contents gate: no pickles, bounded size, whole lineage, this release's own runtime.

It reads the staged files only; nothing is imported, unpacked or unpickled.
"""

from __future__ import annotations

import json
import pickletools
import re
import subprocess
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion

from serving.artifact.digest import file_sha256, short
from serving.artifact.manifest import GateRecord
from serving.release.candidate import RUNTIME_FOLDER, StagedCandidate
from serving.release.gate import at_most, holds, reported, unknown
from serving.release.subject import GateSubject

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
_VERSIONS = """
import importlib.metadata, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class ContentsGate:
    """Files, size, lineage, dataset, runtime and requirements of the package."""

    required: bool
    suffixes: tuple[str, ...]
    """The only kinds of file; the content is looked at too."""
    files: tuple[str, ...]
    """Files that must be there, as paths in the package."""
    max_bytes: int
    """Of the whole package."""
    same_runtime: bool
    """True: a runtime other than this release's own stops the release; False: it is reported."""

    def names(self, name: str, subject: GateSubject) -> tuple[str, ...]:
        kinds = ("files", "size", "lineage", "runtime", "code", "dataset", "requires")
        return tuple(f"{name}.{kind}" for kind in kinds)

    def run(self, name: str, subject: GateSubject) -> Iterator[GateRecord]:
        staged = subject.staged
        problems = list(self.problems(staged))
        detail = "; ".join(problems[:3]) or f"{len(staged.files)} files, no pickle, no archive"
        yield holds(f"{name}.files", not problems, detail)
        total = sum(entry.bytes for entry in staged.files)
        yield at_most(f"{name}.size", total, self.max_bytes, "bytes")
        gaps = lineage_gaps(staged)
        detail = f"run {staged.candidate.lineage.run}, dataset, source, spec and transform"
        yield holds(f"{name}.lineage", not gaps, "; ".join(gaps) or detail)
        runtime = runtime_record(f"{name}.runtime", staged)
        yield runtime if self.same_runtime else reported(runtime)
        yield code_record(f"{name}.code", staged)
        folder = subject.dataset()
        place = f"{folder.parent.name}@{folder.name}"
        yield holds(f"{name}.dataset", True, f"{place}, every file hashed")
        requires = staged.candidate.requires
        have = serving_versions(subject.serving_env, set(requires) - {"python", "triton"})
        absent = absent_libraries(requires, have)
        if absent:  # no server would come up that could be asked for its version
            yield holds(f"{name}.requires", False, absent)
            return
        have["triton"] = subject.served().candidate.server_version()
        yield requirements(f"{name}.requires", requires, have)

    def problems(self, staged: StagedCandidate) -> Iterator[str]:
        """A sentence for each file that is missing or may not be in a package."""
        paths = {entry.path for entry in staged.files}
        for name in self.files:
            if name not in paths:
                yield f"{name} is missing"
        for entry in staged.files:
            if PurePosixPath(entry.path).suffix not in self.suffixes:
                allowed = " ".join(self.suffixes)
                yield f"{entry.path} is of no kind that a package may hold ({allowed})"
            elif kind := pickle_kind(staged.folder / entry.path):
                yield f"{entry.path} is {kind}"


def pickle_kind(path: Path) -> str:
    """The kind of file that makes `path` dangerous to load, as in "a pickle"; else empty.

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
    # After PROTO comes an opcode, which 0 is not: that is the length of a safetensors' header.
    protocol = head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and head[2:3] != b"\0"
    if protocol or _reads_as_pickle(path):
        return "a pickle"
    return ""


def lineage_gaps(staged: StagedCandidate) -> list[str]:
    """A sentence for each digest that candidate.json lacks or that is not its file's."""
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


def runtime_record(name: str, staged: StagedCandidate) -> GateRecord:
    """The number of files in the candidate's copy of the runtime that differ from this release's.

    The detail lists them, and beside them the code that is the task's own.
    """
    foreign, own = _split_code(staged)
    detail = "not this release's own: " + ", ".join(foreign) if foreign else "this release's own"
    return at_most(
        name, len(foreign), 0, f"{detail}; the task's own code: {', '.join(own) or 'none'}"
    )


def code_record(name: str, staged: StagedCandidate) -> GateRecord:
    """The task's own code is exactly what candidate.json names; the manifest names it too."""
    _, own = _split_code(staged)
    declared = {f"version/{path}" for path in staged.candidate.code}
    problems = [f"{path} is not in candidate.json's code" for path in own if path not in declared]
    problems += [f"{path} is named and not there" for path in sorted(declared - {*own})]
    shown = ", ".join(f"{one.path} sha256:{short(one.sha256)}" for one in staged.own_code)
    return holds(name, not problems, "; ".join(problems[:3]) or shown or "none of the task's own")


def _split_code(staged: StagedCandidate) -> tuple[list[str], list[str]]:
    """Paths of the own code: in the folder of the runtime (relative to it), and elsewhere."""
    paths = [entry.path for entry in staged.own_code]
    foreign = [path for path in paths if path.startswith(RUNTIME_FOLDER)]
    return (
        [path.removeprefix(RUNTIME_FOLDER) for path in foreign],
        [path for path in paths if path not in foreign],
    )


def serving_versions(env: Path, libraries: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of those of `libraries` that the serving environment has.

    Raises subprocess.SubprocessError when its interpreter fails, OSError when there is none.
    """
    done = subprocess.run(
        [str(env / "bin/python"), "-c", _VERSIONS, *sorted(libraries)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout)
    return found


def absent_libraries(requires: Mapping[str, str], have: Mapping[str, str]) -> str:
    """A sentence for the libraries that `have`, of the serving environment, lacks; else empty."""
    absent = [
        f"{name}{wanted}"
        for name, wanted in sorted(requires.items())
        if name not in have and name != "triton"
    ]
    if not absent:
        return ""
    which = "it" if len(absent) == 1 else "them"
    return (
        f"the package needs {' and '.join(absent)}; the serving environment has none: "
        f"install {which} there or make the module exportable"
    )


def requirements(name: str, requires: Mapping[str, str], have: Mapping[str, str]) -> GateRecord:
    """Every requirement is satisfied by the serving environment's versions `have`."""
    unmet: list[str] = []
    met: list[str] = []
    for part, wanted in sorted(requires.items()):
        if part not in have:
            return unknown(name, f"{part} {wanted}: no version of it is known here")
        spec = wanted if wanted[:1] in "<>=!~" else f"=={wanted}.*"
        try:
            good = SpecifierSet(spec).contains(have[part], prereleases=True)
        except (InvalidSpecifier, InvalidVersion) as error:
            return unknown(name, f"{part} {wanted}: {error}")
        (met if good else unmet).append(f"{part} {have[part]} (wants {wanted})")
    return holds(name, not unmet, "; ".join(unmet or met))


def _reads_as_pickle(path: Path) -> bool:
    """True when the file begins with a valid pickle program of more than a STOP.

    What follows the STOP does not matter: unpickling would not look at it.
    """
    with path.open("rb") as file:
        data = file.read(_MAX_TEXT_PICKLE)
    try:
        return sum(1 for _ in pickletools.genops(data)) > 1
    except Exception:  # noqa: BLE001 - the parser raises many kinds for what is no pickle
        return False
