"""The staging of a run's candidate: a copy that its owner can no longer change.

The training user writes candidates, so nothing here is trusted: files are copied without following
any link, hashed where they were copied to, and never unpickled or imported.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from serving.artifact.candidate import Candidate, CandidateError, read_candidate
from serving.artifact.digest import bytes_sha256, file_sha256
from serving.artifact.layout import MODEL_PY, RUNTIME
from serving.artifact.manifest import FileEntry, list_files
from serving.artifact.verify import plain_files

MAX_FILES = 1000
RUNTIME_FOLDER = "version/lockgate_runtime/"


@dataclass(frozen=True)
class StagedCandidate:
    """A candidate copied to `folder`, with its files as they were hashed there."""

    folder: Path
    candidate: Candidate
    files: tuple[FileEntry, ...]

    @property
    def own_code(self) -> tuple[FileEntry, ...]:
        """The code that is neither Triton's entry nor a file of the runtime as this release has it.

        By digest, never by import. In lockgate_runtime/ every kind of file counts, elsewhere those
        of Python; that is what runs behind the confined server and on the hosts.
        """
        return tuple(entry for entry in self.files if _is_own(entry))


def stage_candidate(source: Path, target: Path, max_bytes: int) -> StagedCandidate:
    """Copy the candidate in `source` into the empty folder `target`, and hash the copy.

    Raises CandidateError for more than `max_bytes` or MAX_FILES, `verify.Refused` for a link or a
    device, ManifestError for a name that a package may not hold.
    """
    listed = list_candidate(source)
    total = sum(size for _, size in listed)
    if total > max_bytes or len(listed) > MAX_FILES:
        raise CandidateError(
            f"the candidate has {len(listed)} files and {total} bytes; "
            f"at most {MAX_FILES} and {max_bytes} (max_bytes) are released"
        )
    root = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name, size in listed:
            _copy(root, name, target / name, size)
    finally:
        os.close(root)
    return StagedCandidate(target, read_candidate(target), list_files(target))


def _is_own(entry: FileEntry) -> bool:
    if entry.path.startswith(RUNTIME_FOLDER):
        shipped = RUNTIME / entry.path.removeprefix(RUNTIME_FOLDER)
        return not shipped.is_file() or file_sha256(shipped) != entry.sha256
    is_entry = entry.path == "version/model.py" and entry.sha256 == bytes_sha256(MODEL_PY.encode())
    return entry.path.endswith(".py") and not is_entry


def list_candidate(folder: Path) -> list[tuple[str, int]]:
    """Each file of a candidate with its size, as they are now. Raises `verify.Refused`."""
    return [(name, path.lstat().st_size) for name, path in plain_files(folder)]


def _copy(root: int, name: str, target: Path, size: int) -> None:
    """Copy one file below `root`, opening each folder on the way without following a link.

    The run's owner could swap a folder for a link to somewhere only this user may read.
    """
    handles = []
    try:
        folder = root
        *parents, last = name.split("/")
        for part in parents:
            folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            handles.append(folder)
        file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        handles.append(file)
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_size != size:
            raise CandidateError(f"{name} changed while it was copied; is the run still writing?")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            while size > 0 and (block := os.read(file, min(size, 1 << 20))):
                out.write(block)
                size -= len(block)
    except OSError as error:
        raise CandidateError(f"{name} could not be copied: {error.strerror}") from None
    finally:
        for handle in reversed(handles):
            os.close(handle)
