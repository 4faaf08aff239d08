"""The layout of a candidate, and config.pbtxt to the letter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from serving.artifact import durable, golden, layout
from serving.artifact.candidate import Candidate, read_candidate
from serving.artifact.golden import build_example
from serving.artifact.layout import REQUIRES, fresh_version, write_candidate, write_version
from serving.artifact.lineage import DatasetRef, Lineage
from serving.artifact.tensors import TensorSpec
from serving.runtime.package import runtime_files
from serving.triton.model_config import TritonConfig, config_pbtxt

HERE = Path(__file__).parent
RUNTIME = "lockgate_runtime.tabular_model.TabularModel"
FLIGHTS = TritonConfig(
    model="flights",
    inputs=(
        TensorSpec("carrier", "BYTES", (-1, 1)),
        TensorSpec("temp", "FP32", (-1, 1), optional=True),
    ),
    outputs=(TensorSpec("late_probability", "FP32", (-1, 1)),),
    max_batch_size=64,
    instances=2,
    parameters={"threads": "1"},
)
LM = TritonConfig(
    model="lm",
    inputs=(TensorSpec("text", "BYTES", (1,)), TensorSpec("max_new_tokens", "INT32", (1,))),
    outputs=(TensorSpec("nats", "FP64", (1,)),),
    parameters={"note": 'a "quoted" \\ word', "max_text_bytes": "65536"},
)
CANDIDATE = Candidate(
    model="flights",
    task="flights",
    lineage=Lineage("run", "a" * 64, "b" * 64, DatasetRef("flights", "c" * 64, "/data/flights")),
    transform_digest="d" * 64,
    inputs=FLIGHTS.inputs,
    outputs=FLIGHTS.outputs,
    metrics={"auc": 0.7},
    requires=REQUIRES,
)


@pytest.mark.parametrize("config", [FLIGHTS, LM], ids=lambda config: config.model)
def test_config_is_the_golden_file_and_triton_can_parse_it(config: TritonConfig) -> None:
    text = config_pbtxt(config)
    assert text == (HERE / f"{config.model}.config.pbtxt").read_text()
    parsed = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert [(one.name, one.optional) for one in parsed.input] == [
        (one.name, one.optional) for one in config.inputs
    ]
    assert parsed.max_batch_size == config.max_batch_size
    assert {key: one.string_value for key, one in parsed.parameters.items()} == config.parameters
    assert not parsed.HasField("version_policy")


def test_preferred_batch_never_exceeds_the_largest() -> None:
    config = TritonConfig("m", FLIGHTS.inputs, FLIGHTS.outputs, max_batch_size=4)
    assert "preferred_batch_size: 4\n" in config_pbtxt(config)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": 'x" } '}, "cannot be a name"),
        ({"max_batch_size": 8, "queue_delay_us": 0}, "queue_delay_us must be at least 1"),
        ({"instances": 0}, "instances must be at least 1"),
    ],
)
def test_what_triton_could_not_run_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TritonConfig(**{"model": "m", "inputs": (), "outputs": (), **changes})


@pytest.fixture
def transform(tmp_path: Path) -> Path:
    path = tmp_path / "transform.json"
    path.write_text('{"kind": "flights"}\n')
    return path


def write(out_dir: Path, transform: Path) -> Path:
    version = fresh_version(out_dir)
    write_version(version, RUNTIME, {"transform.json": transform})
    tensor = np.array([[0.5]], np.float32)
    example = build_example({"temp": tensor}, {"late_probability": tensor}, 1e-5, 1e-4)
    return write_candidate(
        out_dir,
        version=version,
        candidate=CANDIDATE,
        config=config_pbtxt(FLIGHTS),
        examples=[example] * 8,
        reference={"format": 1},
    )


def test_candidate_has_the_files_of_the_contract(tmp_path: Path, transform: Path) -> None:
    out_dir = write(tmp_path / "run" / "candidate", transform)
    files = {str(path.relative_to(out_dir)) for path in out_dir.rglob("*") if path.is_file()}
    runtime = {f"version/lockgate_runtime/{path.name}" for path in runtime_files(RUNTIME)}
    assert "version/lockgate_runtime/text_model.py" not in runtime  # only what this class needs
    assert files == runtime | {
        "candidate.json", "config.pbtxt", "golden.json", "reference.json",
        "version/model.py", "version/runtime.json", "version/transform.json",
    }  # fmt: skip
    assert len(golden.read_examples(out_dir)) == 8
    content = json.loads((out_dir / "candidate.json").read_text())
    tensor = {"name": "carrier", "dtype": "BYTES", "shape": [-1, 1], "optional": False}
    assert content["inputs"][0] == tensor
    assert content["requires"]["numpy"] == "<2"
    assert read_candidate(out_dir) == CANDIDATE


def test_the_runtime_imports_itself_relatively() -> None:
    for path in layout.RUNTIME.glob("*.py"):
        assert "from serving" not in path.read_text() and "import serving" not in path.read_text()


def test_a_failing_writer_leaves_the_old_candidate(
    tmp_path: Path, transform: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_dir = write(tmp_path / "run" / "candidate", transform)
    before = (out_dir / "candidate.json").read_bytes()

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "sync_path", full)
    with pytest.raises(OSError, match="No space left"):
        write(out_dir, transform)
    assert (out_dir / "candidate.json").read_bytes() == before
    monkeypatch.undo()
    write(out_dir, transform)
    assert [path.name for path in out_dir.parent.iterdir()] == ["candidate"]
