"""The runtime's classes inside a real Triton: optional inputs, batches, and errors alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serving.artifact.layout import MODEL_PY
from serving.artifact.tensors import TensorSpec
from serving.runtime.features import is_optional
from serving.triton import TritonNotInstalled, TritonServer
from serving.triton.ephemeral import EphemeralServer, serve_packages
from serving.triton.grpc_client import InferError
from serving.triton.model_config import TritonConfig, config_pbtxt
from tests.confined import PATIENCE, confinement
from tests.serving.runtime.test_models import write_classifier, write_tabular
from tests.serving.runtime.test_package import CLASSIFIER, REPO, TABULAR, carry_runtime
from tests.serving.runtime.test_transform import ROW, TRANSFORM, columns

pytestmark = pytest.mark.triton

ENVIRONMENT = REPO / ".venv-serve"


def write_package(folder: Path, target: str, config: TritonConfig) -> Path:
    write = write_tabular if target == TABULAR else write_classifier
    version = write(folder / "version", *([TRANSFORM] if target == TABULAR else []))
    carry_runtime(version, target)
    (version / "model.py").write_text(MODEL_PY)
    (folder / "config.pbtxt").write_text(config_pbtxt(config))
    return folder


def test_both_kinds_answer_in_triton(tmp_path: Path) -> None:
    try:
        TritonServer(ENVIRONMENT, Path(), "", None, 0, None).argv()
    except TritonNotInstalled as reason:
        pytest.skip(str(reason))
    flights = TritonConfig(
        "delays",
        tuple(
            TensorSpec(one.name, one.dtype, (-1, 1), is_optional(one)) for one in TRANSFORM.features
        ),
        (TensorSpec("late_probability", "FP32", (-1, 1)),),
        max_batch_size=8,
    )
    reviews = TritonConfig(
        "reviews",
        (TensorSpec("text", "BYTES", (-1, 1)),),
        (TensorSpec("probabilities", "FP32", (-1, 2)), TensorSpec("label", "BYTES", (-1, 1))),
        max_batch_size=8,
    )
    servers = []
    for target, config in ((TABULAR, flights), (CLASSIFIER, reviews)):
        package = write_package(tmp_path / config.model, target, config)
        servers.append(EphemeralServer(config.model, package, config.model))
    with (
        confinement() as confined,
        serve_packages(servers, ENVIRONMENT, confined, PATIENCE) as (tabular, classifier),
    ):
        row = {name: value.reshape(-1, 1) for name, value in columns([ROW]).items()}
        gone = {"temp": np.float32([[np.nan]]), "maker": np.array([[b""]], object)}
        absent = {name: value for name, value in row.items() if name not in gone}
        missing = tabular.infer({**row, **gone})
        assert np.array_equal(
            tabular.infer(absent)["late_probability"], missing["late_probability"]
        )
        with pytest.raises(InferError, match=r"distance\[0\] is nan"):
            tabular.infer({**row, "distance": np.float32([[np.nan]])})
        texts = np.array([["low"], ["high high"]], object)
        answer = classifier.infer({"text": texts})
        assert answer["label"].tolist() == [[b"yes"], [b"yes"]]
        assert answer["probabilities"].shape == (2, 2)
