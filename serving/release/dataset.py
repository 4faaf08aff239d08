"""The dataset that a candidate was trained on, found and checked by its digest."""

from __future__ import annotations

from pathlib import Path

from conf.errors import LockgateError
from serving.artifact.digest import short, tree_digest
from serving.artifact.lineage import DatasetRef


class DatasetError(LockgateError, ValueError):
    """The dataset is missing or was changed; the message has the command that prepares it."""


def find_dataset(data_root: Path, wanted: DatasetRef) -> Path:
    """The folder of `wanted`, all its files hashed. Raises DatasetError.

    The folder is found by name and digest, never by the path in the run's files.
    """
    folder = Path(data_root) / wanted.name / short(wanted.digest)
    if not folder.is_dir():
        raise DatasetError(
            f"dataset {wanted.name}@{short(wanted.digest)} is not in {data_root}, so nothing can "
            f"be measured on its hold-out. Prepare it: lockgate data prepare data={wanted.name}"
        )
    found = tree_digest(folder)
    if found != wanted.digest:
        raise DatasetError(
            f"dataset {folder} has digest {short(found)}, not {short(wanted.digest)}: its files "
            f"were changed. Prepare it again: lockgate data prepare data={wanted.name}"
        )
    return folder
