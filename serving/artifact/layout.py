"""The layout of a candidate: the files of a package, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.artifact import candidate as candidates
from serving.artifact import golden
from serving.artifact.candidate import Candidate
from serving.artifact.digest import canonical_json
from serving.artifact.durable import replace_folder
from serving.artifact.golden import GoldenExample
from serving.runtime.package import FILE as RUNTIME_JSON
from serving.runtime.package import runtime_files

RUNTIME = Path(__file__).resolve().parents[1] / "runtime"
"""Source of a package's `lockgate_runtime`."""
REQUIRES = {"triton": ">=2.51", "numpy": "<2", "python": "3.11"}

MODEL_PY = '''\
"""Triton's way in. The model itself is the package beside this file, lockgate_runtime."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True  # a version folder is what its manifest says, and nothing more
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lockgate_runtime.triton_model import TritonPythonModel  # noqa: E402, F401
'''


def fresh_version(out_dir: Path) -> Path:
    """A path beside the candidate folder `out_dir` for `write_version`, with nothing there.

    What a killed export left beside it goes away.
    """
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    for stale in out_dir.parent.glob(f".{out_dir.name}-version-*"):
        shutil.rmtree(stale)
    return out_dir.with_name(f".{out_dir.name}-version-{os.getpid()}")


def write_version(version: Path, runtime: str, files: Mapping[str, Path]) -> None:
    """Fill the new folder `version`: Triton's entry, the runtime class `runtime`, `files` by name.

    `runtime` is written to `runtime.json`; of `lockgate_runtime` only the files that it needs come
    along. Raises ValueError for a class whose module the runtime does not have.
    """
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL_PY)
    (version / RUNTIME_JSON).write_bytes(canonical_json({"_target_": runtime}))
    (version / "lockgate_runtime").mkdir()
    for source in runtime_files(runtime):
        shutil.copyfile(source, version / "lockgate_runtime" / source.name)
    for name, source in files.items():
        shutil.copyfile(source, version / name)


def write_candidate(
    out_dir: Path,
    *,
    version: Path,
    candidate: Candidate,
    config: str,
    examples: Sequence[GoldenExample],
    reference: Mapping[str, Any],
) -> Path:
    """Write the candidate folder `out_dir`, taking over the folder made by `write_version`.

    `version` must lie beside `out_dir`; `config` is the text of config.pbtxt. A candidate that was
    there is replaced whole, at the end; a killed writer leaves it as it was. Returns `out_dir`.
    """
    staged = _fresh(out_dir.with_name(f".{out_dir.name}-staging-{os.getpid()}"))
    version.rename(staged / "version")
    (staged / "config.pbtxt").write_text(config)
    (staged / golden.FILE).write_bytes(golden.golden_json(examples))
    (staged / "reference.json").write_bytes(canonical_json(reference))
    (staged / candidates.FILE).write_bytes(candidate.to_bytes())
    replace_folder(staged, out_dir)
    return out_dir


def _fresh(folder: Path) -> Path:
    """An empty folder; what a killed writer left beside it under the same prefix goes away."""
    prefix = folder.name.rsplit("-", 1)[0]
    for stale in folder.parent.glob(f"{prefix}-*"):
        shutil.rmtree(stale)
    folder.mkdir(parents=True)
    return folder
