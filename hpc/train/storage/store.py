"""The interface of a checkpoint store, and the store that is a folder."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from conf.errors import LockgateError
from hpc.jobs.spec.store_address import FOLDER, folder_of, scheme_of
from serving.artifact.durable import sync_path

PARTIAL = ".partial-"


class StoreFault(LockgateError):
    """A checkpoint store is away, or did not take or give what it should."""


class CheckpointStore(Protocol):
    """Files by relative name such as `run/00000010/model.safetensors`.

    Every method raises `StoreFault`, and nothing else, for a fault of the store.
    """

    @property
    def address(self) -> str:
        """Its place, for people and for notes on copies."""
        ...

    def put(self, source: Path, name: str) -> None:
        """Copy `source` to `name`, over what is there: visible whole or not at all.

        Raises OSError where `source` cannot be read.
        """
        ...

    def open_file(self, name: str) -> BinaryIO:
        """The content of `name`, for reading; closed by the caller."""
        ...

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of every file below the folder `prefix`; empty where there is none."""
        ...

    def remove(self, names: Collection[str]) -> None:
        """Remove files; one that is not there is no fault."""
        ...


@dataclass(frozen=True)
class FolderStore:
    """A store that is a folder, on a disk of its own or another file system."""

    folder: Path

    @property
    def address(self) -> str:
        return str(self.folder)

    def put(self, source: Path, name: str) -> None:
        """See `CheckpointStore.put`; durable when it returns."""
        target = self.folder / name
        partial = target.with_name(f"{PARTIAL}{target.name}")
        with source.open("rb") as content, _faults():
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
            sync_path(partial)
            partial.replace(target)
            sync_path(target.parent)

    def open_file(self, name: str) -> BinaryIO:
        """See `CheckpointStore.open_file`."""
        with _faults():
            return (self.folder / name).open("rb")

    def sizes(self, prefix: str) -> dict[str, int]:
        """See `CheckpointStore.sizes`."""
        with _faults():
            return {
                path.relative_to(self.folder).as_posix(): path.stat().st_size
                for path in (self.folder / prefix).rglob("*")
                if path.is_file() and not path.name.startswith(PARTIAL)
            }

    def remove(self, names: Collection[str]) -> None:
        """See `CheckpointStore.remove`; a folder that is empty then goes too."""
        with _faults():
            for name in names:
                (self.folder / name).unlink(missing_ok=True)
            for parent in sorted({(self.folder / name).parent for name in names}, reverse=True):
                for left in parent.glob(f"{PARTIAL}*"):
                    left.unlink(missing_ok=True)
                while parent != self.folder and parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()
                    parent = parent.parent


def open_checkpoint_store(address: str) -> CheckpointStore:
    """The store at an address of `hpc.jobs.spec.store_address`; nothing is sent yet.

    Raises `ConfigError` where its package is not installed.
    """
    if scheme_of(address) == FOLDER:
        return FolderStore(Path(folder_of(address)))
    from hpc.train.storage.objects import open_object_store  # fsspec: where there is a store only

    return open_object_store(address)


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise StoreFault(f"{place}{error.strerror or error}") from error
