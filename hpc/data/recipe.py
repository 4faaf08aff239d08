"""The recipe of a dataset: everything that decides its bytes, as one digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc.data.source import SourceFile, package_version
from serving import runtime
from serving.artifact import table
from serving.artifact.digest import bytes_sha256, canonical_json, file_sha256

FOLDERS = (Path(__file__).parent, Path(runtime.__file__).parent)
CODE = (*(file for folder in FOLDERS for file in sorted(folder.glob("*.py"))), Path(table.__file__))
LIBRARIES = ("numpy", "pyarrow", "tokenizers")
PLACES = ("path", "folder", "sha256")  # the digests of the sources count, not where they lie


@dataclass(frozen=True)
class Made:
    """What making a dataset found out: its schema, its splits (file and size), what was dropped."""

    schema: Mapping[str, str]
    splits: Mapping[str, Mapping[str, Any]]
    notes: Mapping[str, Any]


def recipe_digest(config: object, sources: Mapping[str, SourceFile]) -> str:
    """The digest of config (a dataclass), sources, preparing code and the libraries it uses.

    With the same recipe the result is the same, so `prepare` answers `unchanged` at once. The
    place of a source is left out: moving a file changes nothing.
    """
    ingredients = {
        "config": _without_places(asdict(config)),  # type: ignore[call-overload]
        "sources": {key: asdict(source) for key, source in sources.items()},
        "code": {f"{file.parent.name}/{file.name}": file_sha256(file) for file in CODE},
        "libraries": {name: package_version(name) for name in LIBRARIES},
    }
    return bytes_sha256(canonical_json(ingredients))


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    source = {key: value for key, value in config["source"].items() if key not in PLACES}
    return {**config, "source": source}
