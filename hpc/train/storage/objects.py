"""An object store that fsspec reaches: S3, Google Cloud Storage, Azure.

Credentials, endpoints and time limits are fsspec's own business (its packages read the cloud's
profiles and roles, `FSSPEC_*` and `~/.config/fsspec`): none of them passes through Lockgate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from fsspec.core import url_to_fs

from hpc.jobs.spec.store_address import check_store_package
from hpc.train.storage.store import StoreFault

BLOCK_BYTES = 8 << 20
"""Of one request when an object is read."""


class ObjectStore:
    """See `CheckpointStore`. An object is there once its upload is complete, and never in part."""

    def __init__(self, address: str, file_system: Any, root: str) -> None:
        self.address = address
        self._files, self._root = file_system, root.rstrip("/")

    def put(self, source: Path, name: str) -> None:
        """See `CheckpointStore.put`."""
        with source.open("rb"):  # an OSError of this one is no fault of the store
            pass
        with self._faults():
            self._files.put_file(str(source), self._path(name))

    def open_file(self, name: str) -> BinaryIO:
        """See `CheckpointStore.open_file`; also what is read from it raises `StoreFault`."""
        with self._faults():
            options = {"block_size": BLOCK_BYTES, "cache_type": "readahead"}
            opened = self._files.open(self._path(name), "rb", **options)
        return cast(BinaryIO, _Reader(self, opened))

    def sizes(self, prefix: str) -> dict[str, int]:
        """See `CheckpointStore.sizes`."""
        with self._faults():
            self._files.invalidate_cache()
            try:
                found = self._files.find(self._path(prefix), detail=True)
            except FileNotFoundError:
                return {}
            cut = len(self._root.lstrip("/")) + 1
            return {path.lstrip("/")[cut:]: int(one["size"]) for path, one in found.items()}

    def remove(self, names: Collection[str]) -> None:
        """See `CheckpointStore.remove`."""
        with self._faults():
            there = [path for path in map(self._path, names) if self._files.exists(path)]
            if there:
                self._files.rm(there)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Errors of fsspec's packages have no class in common."""
        try:
            yield
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0][:300]
            raise StoreFault(f"{type(error).__name__}: {first}") from error


class _Reader:
    """An opened object whose faults are the store's."""

    def __init__(self, store: ObjectStore, opened: Any) -> None:
        self._store, self._opened = store, opened

    def read(self, size: int = -1) -> bytes:
        with self._store._faults():
            return self._opened.read(size)

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()


def open_object_store(address: str) -> ObjectStore:
    """The store at a URL; nothing is sent yet. Raises `ConfigError` for a missing package."""
    check_store_package(address)
    file_system, root = url_to_fs(address, use_listings_cache=False)
    return ObjectStore(address, file_system, root)
