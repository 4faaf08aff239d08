"""The recipe of a dataset: everything that decides its bytes, as one digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conf.plugin import target_name
from hpc.data.dataset import Dataset
from hpc.data.source import SourceFile, package_version
from serving.artifact.digest import bytes_sha256, canonical_json, file_sha256

LIBRARIES = ("duckdb", "numpy", "pyarrow", "tokenizers")
PLACES = ("files", "folder", "sha256")  # the digests of the sources count, not where they lie


def recipe_digest(dataset: Dataset, sources: Mapping[str, SourceFile]) -> str:
    """The digest of config (a dataclass), sources, preparing code and the libraries it uses.

    With the same recipe the result is the same, so `prepare` answers `unchanged` at once. The
    place of a source is left out: moving a file changes nothing.
    """
    ingredients = {
        "kind": target_name(type(dataset)),
        "config": _without_places(asdict(dataset)),  # type: ignore[call-overload]
        "sources": {key: asdict(source) for key, source in sources.items()},
        "code": {f"{file.parent.name}/{file.name}": file_sha256(file) for file in dataset.code()},
        "libraries": {name: package_version(name) for name in LIBRARIES},
    }
    return bytes_sha256(canonical_json(ingredients))


def files_of(folder: Path) -> tuple[Path, ...]:
    """The Python files of a dataset kind's own folder, sorted."""
    return tuple(sorted(folder.glob("*.py")))


def core_files(*modules: str) -> tuple[Path, ...]:
    """The files of the modules that kinds share, by their names in `hpc.data`."""
    return tuple(Path(__file__).with_name(f"{module}.py") for module in modules)


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    source = config.get("source")
    if not isinstance(source, dict):
        return config
    return {**config, "source": {key: source[key] for key in source if key not in PLACES}}
