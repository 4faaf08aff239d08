"""A signed package of a given size, of bytes that nothing compresses."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from serving.artifact import golden, store
from serving.artifact.lineage import DatasetRef, Lineage
from serving.artifact.manifest import Manifest, list_files
from serving.artifact.signature import sign
from serving.artifact.tensors import TensorSpec
from serving.artifact.verify import FORMAT

MODEL = "bench"
_MIB = 1 << 20
_TENSOR = {"dtype": "FP32", "shape": [1, 1], "data": [1.0]}


def publish_random(
    folder: Path, key: Path, version: int, mib: int, weights: Path | None = None
) -> Path:
    """Publish a version with `mib` MiB of random weights in the store `folder`, or with `weights`.

    No Triton loads it: it is moved, verified and moved again.
    """
    staged = store.stage(folder, f"{MODEL}-{version}")
    (staged / "version").mkdir()
    (staged / "version" / "model.py").write_text("# moved, never loaded\n")
    if weights is not None:
        shutil.copyfile(weights, staged / "version" / "weights.bin")
    else:
        with (staged / "version" / "weights.bin").open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(_MIB))
    (staged / "config.pbtxt").write_text(f'name: "{MODEL}"\nbackend: "python"\n')
    example = {"inputs": {"x": _TENSOR}, "outputs": {"y": _TENSOR}, "atol": 0.0, "rtol": 0.0}
    (staged / golden.FILE).write_text(json.dumps([example]))
    manifest = Manifest(
        format=FORMAT,
        model=MODEL,
        version=version,
        task="bench",
        created="2026-01-01T00:00:00Z",
        expires="2099-01-01T00:00:00Z",
        files=list_files(staged),
        inputs=(TensorSpec("x", "FP32", (-1, 1)),),
        outputs=(TensorSpec("y", "FP32", (-1, 1)),),
        transform_digest="0" * 64,
        requires={},
        lineage=Lineage("bench", "0" * 64, "0" * 64, DatasetRef("bench", "0" * 64)),
        metrics={},
        gates=(),
    )
    return store.publish(folder, staged, manifest, sign(manifest.to_bytes(), key))
