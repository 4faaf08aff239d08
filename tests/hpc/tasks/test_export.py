"""Candidates: whole, portable, and equal to the model that was trained."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from hpc.tasks.module.data import read_arrays
from hpc.tasks.onnx_export import ExportRefused, export_onnx
from hpc.tasks.tabular.data import read_table, served_values
from hpc.tasks.transformers.data import read_texts
from serving.artifact import golden
from serving.artifact.candidate import read_candidate
from serving.artifact.digest import file_sha256, tree_digest
from serving.artifact.splits import read_examples
from serving.release.gates.contents import pickle_kind
from serving.runtime.errors import InvalidInput
from serving.runtime.package import open_model, runtime_files
from serving.runtime.tabular_model import TabularModel
from serving.runtime.text_model import TextModel
from tests.hpc.tasks.conftest import Exported
from tests.hpc.tasks.foreign import Exotic, ValueDependent

REPO = Path(__file__).resolve().parents[3]
SERVING_PYTHON = REPO / ".venv-serve" / "bin" / "python"


def test_candidate_says_where_it_comes_from(exported: Exported) -> None:
    found = read_candidate(exported.candidate)
    assert found.task == found.model == exported.config.task.name
    assert found.lineage.run == f"{found.task}-run"
    assert found.lineage == exported.lineage
    assert found.lineage.dataset.digest == exported.dataset.lineage.digest
    dataset = found.lineage.dataset.folder
    assert found.transform_digest == file_sha256(dataset / "transform.json")
    assert found.transform_digest == file_sha256(exported.version / "transform.json")


def test_nothing_in_it_is_a_pickle_or_a_machine_path(exported: Exported) -> None:
    for path in exported.version.rglob("*"):
        if path.is_file():
            assert not pickle_kind(path), path
            data = path.read_bytes()
            for place in (str(REPO), str(Path.home()), "site-packages"):
                assert place.encode() not in data, f"{place} in {path}"


def test_golden_examples_come_back_equal(exported: Exported) -> None:
    examples = golden.read_examples(exported.candidate)
    assert len(examples) >= 8
    model = open_model(exported.version)
    for example in examples:
        assert golden.differences(example, model(example.inputs)) == []


def test_golden_examples_hold_the_edges(flights_exported: Exported, lm_exported: Exported) -> None:
    requests = [one.inputs for one in golden.read_examples(flights_exported.candidate)]
    assert any(one["carrier"].tolist() == [[b"never seen"]] for one in requests)
    assert any(np.isnan(one["temp"]).all() and np.isnan(one["wind_dir"]).all() for one in requests)
    assert any(len(one["carrier"]) > 1 for one in requests)
    alone = [one["distance"].item() for one in requests if one["distance"].size == 1]
    assert {1.0, 12500.0} <= set(alone)  # both limits
    texts = [one.inputs["text"][0] for one in golden.read_examples(lm_exported.candidate)]
    context = TextModel.load(lm_exported.version).context
    tokenizer = TextModel.load(lm_exported.version).tokenizer
    assert any(len(tokenizer.encode(text.decode()).ids) > context for text in texts)
    assert any(not text.isascii() for text in texts)


def test_a_package_has_the_runtime_files_of_its_kind_alone(exported: Exported) -> None:
    target = json.loads((exported.version / "runtime.json").read_text())["_target_"]
    found = {path.name for path in (exported.version / "lockgate_runtime").iterdir()}
    assert found == {path.name for path in runtime_files(target)}


@pytest.mark.parametrize(
    ("name", "split"), [("flights", "later"), ("wine", "holdout"), ("diabetes", "holdout")]
)
def test_a_tabular_package_computes_what_torch_computes(
    name: str, split: str, request: pytest.FixtureRequest
) -> None:
    exported = request.getfixturevalue(f"{name}_exported")
    served = TabularModel.load(exported.version)
    wanted = served_values(exported.model, read_table(exported.dataset.path, split))
    answer = served(read_examples(exported.dataset.path, split).inputs)
    (found,) = [array for array in answer.values() if array.dtype.kind == "f"]
    assert np.allclose(found, wanted, atol=1e-5 * max(1.0, np.abs(wanted).max()))
    if name == "wine":
        assert np.allclose(found.sum(axis=1), 1.0, atol=1e-5)
        classes = served.transform.target.classes
        named = [classes[place].encode() for place in found.argmax(axis=1)]
        assert answer["label"][:, 0].tolist() == named
    if name == "diabetes":  # in the target's unit: progression from 25 to 346
        target = read_examples(exported.dataset.path, split).target
        assert 50 < found.mean() < 250 and np.corrcoef(found[:, 0], target)[0, 1] > 0.3


def test_a_module_package_computes_what_torch_computes(digits_exported: Exported) -> None:
    arrays = read_arrays(digits_exported.dataset.path, "holdout")
    images = np.asarray(arrays.inputs["image"])
    found = open_model(digits_exported.version)({"image": images})["logits"]
    with torch.no_grad():
        wanted = digits_exported.model.eval()(torch.from_numpy(images)).numpy()
    assert np.allclose(found, wanted, atol=1e-4)
    assert (found.argmax(axis=1) == np.asarray(arrays.targets["digit"])).mean() > 0.5


def test_a_text_classifier_computes_what_torch_computes(phrases_exported: Exported) -> None:
    texts = read_texts(phrases_exported.dataset.path, "holdout")
    request = {"text": np.array([[text.encode()] for text in texts.texts], object)}
    found = open_model(phrases_exported.version)(request)["probabilities"]
    with torch.no_grad():
        logits = phrases_exported.model.eval()(**texts.tokens(slice(None))).logits
    assert np.allclose(found, torch.softmax(logits, dim=1).numpy(), atol=1e-5)


def test_exporting_again_replaces_the_candidate_whole(exported: Exported, tmp_path: Path) -> None:
    out_dir = tmp_path / f"{exported.config.task.name}-run" / "candidate"
    out_dir.mkdir(parents=True)
    (out_dir / "left over.txt").write_text("from an attempt that was killed")
    killed = out_dir.with_name(".candidate-staging-1")
    killed.mkdir()
    exported.export(out_dir)
    assert [path.name for path in out_dir.parent.iterdir()] == ["candidate"]
    ignored = ("version/model.onnx",)  # its bytes may differ; what it computes may not
    assert tree_digest(out_dir, ignored) == tree_digest(exported.candidate, ignored)


class Drops(torch.nn.Module):
    """Behaves otherwise when it is traced."""

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers + (0.5 if torch.compiler.is_exporting() else 0.0)


def test_an_export_that_differs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ExportRefused, match=r"numbers_out of the ONNX model is off by 0\.5"):
        export_onnx(Drops(), [{"numbers": torch.zeros(3, 2)}], path, ["numbers_out"], {})
    assert not path.exists()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Exotic(), r"Exotic does not export to ONNX: it uses aten\.linalg_matrix_exp, which ONNX"),
        (
            ValueDependent(),
            r"ValueDependent does not export to ONNX \(foreign\.py:\d+\): Could not",
        ),
    ],
)
def test_a_module_without_an_onnx_form_is_refused_by_name(
    module: torch.nn.Module, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    images = {"image": torch.rand(3, 1, 8, 8)}
    with pytest.raises(ExportRefused, match=words) as refused:
        export_onnx(module, [images], path, ["y"], {"image": {0: "batch"}})
    assert len(str(refused.value).splitlines()) == 1
    assert not path.exists()


def test_a_refused_export_leaves_the_old_candidate(
    flights_exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_dir = tmp_path / "run" / "candidate"
    shutil.copytree(flights_exported.candidate, out_dir)
    before = tree_digest(out_dir, ())
    monkeypatch.setattr("hpc.tasks.onnx_export.ATOL", -1.0)
    with pytest.raises(ExportRefused):
        flights_exported.export(out_dir)
    assert tree_digest(out_dir, ()) == before
    assert [path.name for path in out_dir.parent.iterdir()] == ["candidate"]


def test_onnx_keeps_no_trace_of_how_it_was_made(lm_exported: Exported) -> None:
    model = onnx.load(lm_exported.version / "model.onnx")
    assert {one.key: one.value for one in model.metadata_props} == {"lockgate.context": "32"}
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_a_bad_request_among_good_ones_fails_alone(flights_exported: Exported) -> None:
    model = TabularModel.load(flights_exported.version)
    good = golden.read_examples(flights_exported.candidate)[0].inputs
    many = golden.read_examples(flights_exported.candidate)[6].inputs
    bad = {**good, "distance": np.array([[np.nan]], np.float32)}
    first, second, third = model.answer([good, bad, many])
    assert isinstance(second, InvalidInput) and "distance[0] is nan" in str(second)
    assert np.allclose(first["late_probability"], model(good)["late_probability"], atol=1e-6)
    assert np.allclose(third["late_probability"], model(many)["late_probability"], atol=1e-6)
    together = model.answer([good, many])
    assert together[1]["late_probability"].shape == (6, 1)
    assert np.allclose(together[1]["late_probability"], third["late_probability"], atol=1e-6)


def lm_request(text: bytes, new_tokens: int = 0) -> dict[str, np.ndarray]:
    return {
        "text": np.array([text], object),
        "max_new_tokens": np.array([new_tokens], np.int32),
    }


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (lm_request(b""), "text is empty"),
        (lm_request(b"x" * 101), "text has 101 bytes; at most 100 are taken"),
        (lm_request(b"ab\xff"), "text is not UTF-8 at byte 2"),
        (lm_request(b"ok", 9), "max_new_tokens is 9; it must be from 0 to 8"),
        (lm_request(b"ok", -1), "max_new_tokens is -1"),
        ({"text": np.array([b"ok"], object)}, "inputs must be text and max_new_tokens"),
        (
            {**lm_request(b"ok"), "max_new_tokens": np.array([1], np.int64)},
            "max_new_tokens must be one INT32, not int64",
        ),
        ({**lm_request(b"ok"), "text": np.array([1], np.int32)}, "text must be one BYTES"),
    ],
)
def test_bad_text_requests_are_named(request_: dict, said: str, lm_exported: Exported) -> None:
    limits = {"max_text_bytes": "100", "max_new_tokens": "8"}
    model = TextModel.load(lm_exported.version, limits)
    answers = model.answer([request_, lm_request(b"ok", 8)])
    assert isinstance(answers[0], InvalidInput) and said in str(answers[0])
    assert answers[1]["completion"].shape == (1,)


def test_generation_slides_past_the_context(lm_exported: Exported) -> None:
    model = TextModel.load(lm_exported.version)
    ids = list(range(60, 60 + model.context - 2))
    assert len(model.generate(ids, 10).tokens) == 10
    longer = [*range(300, 320), *ids]  # what slid out cannot matter
    full = model.generate(ids + ids, 3).tokens
    assert model.generate([*longer, *ids], 3).tokens == full


IN_SERVING = """
import sys
from pathlib import Path
import numpy
sys.path.insert(0, sys.argv[1] + "/version")
sys.dont_write_bytecode = True
from lockgate_runtime.package import open_model
import json
assert int(numpy.__version__.split(".")[0]) < 2, numpy.__version__
assert not {name.split(".")[0] for name in sys.modules} & {"serving", "hpc", "torch", "conf"}
dtypes = {"FP32": numpy.float32, "INT32": numpy.int32}
def array(tensor):
    data = tensor["data"]
    if tensor["dtype"] == "BYTES":
        made = numpy.empty(len(data), dtype=object)
        made[:] = [text.encode() for text in data]
    else:
        made = numpy.array(data, dtype=dtypes[tensor["dtype"]])
    return made.reshape(tensor["shape"])
model = open_model(Path(sys.argv[1]) / "version")
for example in json.load(open(sys.argv[1] + "/golden.json")):
    request = {name: array(tensor) for name, tensor in example["inputs"].items()}
    answer = model(request)
    if hasattr(model, "transform"):
        answer.update(model.transform.encode(request))
    flat = {name: value.reshape(-1).tolist() for name, value in sorted(answer.items())}
    print(json.dumps(flat, default=bytes.decode))
"""


def test_the_copied_runtime_answers_the_same_in_the_serving_environment(
    exported: Exported, tmp_path: Path
) -> None:
    if not SERVING_PYTHON.exists():
        pytest.skip(f"{SERVING_PYTHON} is not there: scripts/setup")
    command = [str(SERVING_PYTHON), "-I", "-c", IN_SERVING, str(exported.candidate)]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    model = open_model(exported.version)
    examples = golden.read_examples(exported.candidate)
    for example, line in zip(examples, done.stdout.splitlines(), strict=True):
        request = example.inputs
        here = dict(model(request))
        if isinstance(model, TabularModel):
            here |= model.transform.encode(request)
        for name, values in json.loads(line).items():
            mine = here[name].reshape(-1)
            if mine.dtype == object:
                assert [one.decode() for one in mine] == values
            elif name == "nats":  # a sum of exps, whose last bit is numpy's own affair
                assert np.allclose(mine, values, rtol=1e-6, atol=0)
            else:
                assert np.array_equal(mine, np.array(values, mine.dtype)), name


def test_importing_the_runtime_needs_nothing_of_ours() -> None:
    code = (
        "import sys, serving.runtime.package, serving.runtime.triton_model\n"
        "names = {name.split('.')[0] for name in sys.modules}\n"
        "assert not names & {'torch', 'hpc', 'conf', 'omegaconf', 'pyarrow', 'onnx'}, names"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
