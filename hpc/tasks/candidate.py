"""The candidate of an exported model: a version folder with its runtime, and what describes it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.artifact.candidate import Candidate
from serving.artifact.digest import file_sha256
from serving.artifact.golden import GoldenExample
from serving.artifact.layout import REQUIRES, fresh_version, write_candidate, write_version
from serving.artifact.lineage import Lineage
from serving.triton.model_config import TritonConfig, config_pbtxt


@contextmanager
def new_version(out_dir: Path, runtime: str, files: Mapping[str, Path]) -> Iterator[Path]:
    """A version folder beside the candidate `out_dir`, served by the class `runtime`.

    It holds that class's files, `files` by name, and room for `model.onnx`. It is removed at the
    end of the block, unless `finish_candidate` has taken it over.
    """
    version = fresh_version(out_dir)
    try:
        write_version(version, runtime, files)
        yield version
    finally:
        shutil.rmtree(version, ignore_errors=True)


def finish_candidate(
    out_dir: Path,
    version: Path,
    *,
    task: str,
    lineage: Lineage,
    config: TritonConfig,
    metrics: Mapping[str, float],
    examples: Sequence[GoldenExample],
    reference: Mapping[str, Any],
    code: Sequence[str] = (),
    requires: Mapping[str, str] | None = None,
) -> Path:
    """Write the candidate folder `out_dir` of a filled `version`, whole or not at all.

    `code` names the files of `version` that are the task's own code, and `requires` the libraries
    that it needs beside what every package does.
    """
    candidate = Candidate(
        model=config.model,
        task=task,
        lineage=lineage,
        transform_digest=file_sha256(version / "transform.json"),
        inputs=config.inputs,
        outputs=config.outputs,
        metrics=dict(metrics),
        requires={**(requires or {}), **REQUIRES},
        code=tuple(code),
    )
    return write_candidate(
        out_dir,
        version=version,
        candidate=candidate,
        config=config_pbtxt(config),
        examples=examples,
        reference=reference,
    )
