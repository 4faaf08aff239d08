"""Modules that ONNX cannot express, packaged as their own code and weights."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from conf.plugin import make_plugin
from hpc.data.publish import Published
from hpc.jobs.spec.config import TrainConfig, train_config
from hpc.tasks.module import ModuleTask
from hpc.tasks.module.data import read_arrays
from hpc.tasks.onnx_export import ExportRefused
from serving.artifact import golden
from serving.artifact.candidate import read_candidate
from serving.artifact.digest import tree_digest
from serving.artifact.lineage import DatasetRef, Lineage
from serving.artifact.manifest import GateRecord
from serving.release.candidate import StagedCandidate, stage_candidate
from serving.release.gate import run_gate
from serving.release.gates.contents import pickle_kind
from serving.release.subject import ServedPackages
from serving.runtime.own_code import OwnCode
from serving.runtime.package import open_model, runtime_files
from serving.triton.ephemeral import EphemeralServer, serve_packages
from serving.triton.grpc_client import InferError
from tests.confined import PATIENCE, confinement
from tests.hpc.tasks.conftest import Exported, digits_config, trained
from tests.serving.release.subjects import bare_subject

REPO = Path(__file__).resolve().parents[3]
SERVING_ENV = REPO / ".venv-serve"

OWN = ("shapes", "borrowed", "model")

LAYERS = """
import torch
from torch import nn


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.5))

    def forward(self, hidden):
        return hidden * self.factor
"""
NET = """
from dataclasses import dataclass

import torch
from torch import nn

from shapes.layers import Scale


class Deepening(nn.Module):
    '''Halves rows until none is large: how often depends on the values.'''

    def __init__(self, classes: int, activation: nn.Module):
        super().__init__()
        self.scale = Scale()
        self.activation = activation
        self.output = nn.Linear(64, classes)
        self.register_buffer("limit", torch.tensor(0.5))

    def forward(self, image):
        from .layers import Scale as again

        assert isinstance(self.scale, again)
        hidden = self.scale(image.flatten(1))
        while bool((hidden > self.limit).any()):
            hidden = torch.where(hidden > self.limit, hidden / 2, hidden)
        return self.output(self.activation(hidden))


class Lucky(Deepening):
    def forward(self, image):
        return super().forward(image) + torch.rand(())


class Tied(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.second = nn.Linear(width, 64)
        self.second.weight = self.first.weight

    def forward(self, image):
        return self.second(torch.tanh(self.first(image.flatten(1))))[:, :10]


@dataclass(frozen=True)
class TiedConfig:
    width: int

    def build(self):
        return Tied(self.width)
"""
MODEL_KEYS = {
    "classes": 10,
    "activation": {"_target_": "torch.nn.LeakyReLU", "negative_slope": 0.1},
}
MODEL = {"_target_": "shapes.net.Deepening", **MODEL_KEYS}
DERIVED = """
import {name}

from shapes.net import Deepening


class {title}(Deepening):
    pass
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project folder with the package `shapes` and the module `borrowed`, importable."""
    root = tmp_path_factory.mktemp("project")
    (root / "shapes").mkdir()
    (root / "shapes" / "__init__.py").write_text('"""Shapes."""\n')
    (root / "shapes" / "layers.py").write_text(LAYERS)
    (root / "shapes" / "net.py").write_text(NET)
    (root / "shapes" / "weights.bin").write_bytes(b"not code")
    (root / "borrowed.py").write_text("FACTOR = 2\n")
    stray, ours = (
        DERIVED.format(name="borrowed", title="Stray"),
        DERIVED.format(name="kernels", title="Ours"),
    )
    (root / "shapes" / "stray.py").write_text(stray)
    (root / "shapes" / "ours.py").write_text(ours)
    (root / "model.py").write_text(DERIVED.format(name="torch", title="Entry"))
    sys.path.insert(0, str(root))
    yield root
    sys.path.remove(str(root))
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def deepening(project: Path, digits: Published, tmp_path_factory) -> Exported:
    return trained(digits_config(model=MODEL), digits, tmp_path_factory)


def test_auto_packages_code_and_weights_where_onnx_has_no_form(
    project: Path, digits: Published, tmp_path_factory, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "hpc.tasks.module.export"):
        exported = trained(digits_config(model=MODEL), digits, tmp_path_factory, steps=2)
    (record,) = [one for one in caplog.records if one.name == "hpc.tasks.module.export"]
    said = record.getMessage()
    assert re.match(r"Deepening does not export to ONNX \(net\.py:\d+\): ", said), said
    assert said.endswith("It is packaged as torch code: serving hosts need torch.")
    files = {
        path.relative_to(exported.version).as_posix()
        for path in exported.version.rglob("*")
        if path.is_file() and "lockgate_runtime" not in path.parts
    }
    code = {
        "shapes/__init__.py",
        "shapes/layers.py",
        "shapes/net.py",
        "shapes/ours.py",
        "shapes/stray.py",
    }
    layout = {"model.py", "runtime.json", "transform.json", "module.json", "model.safetensors"}
    assert files == layout | code
    target = json.loads((exported.version / "runtime.json").read_text())["_target_"]
    assert target == "lockgate_runtime.torch_model.TorchModel"
    names = {path.name for path in runtime_files(target)}
    assert {"torch_model.py", "own_code.py", "array_inputs.py"} <= names
    assert "session.py" not in names  # no onnxruntime
    found = read_candidate(exported.candidate)
    assert found.code == tuple(sorted(code))
    assert found.requires["torch"] == ">=" + ".".join(torch.__version__.split(".")[:2])
    assert set(found.requires) == {"numpy", "python", "triton", "torch", "safetensors"}


def test_the_package_computes_what_torch_computes_bit_for_bit(deepening: Exported) -> None:
    arrays = read_arrays(deepening.dataset.path, "holdout")
    images = np.asarray(arrays.inputs["image"])
    with torch.no_grad():
        wanted = deepening.model.eval()(torch.from_numpy(np.array(images))).numpy()
    served = open_model(deepening.version)
    assert np.array_equal(served({"image": images})["logits"], wanted)
    for example in golden.read_examples(deepening.candidate):
        assert golden.differences(example, served(example.inputs)) == []
    good, bad = served.answer([{"image": images[:3]}, {"image": images[:3, 0]}])
    assert np.allclose(good["logits"], wanted[:3], atol=1e-5)
    assert "image has shape [3, 8, 8]" in str(bad)
    weights = {name: tensor.dtype for name, tensor in served.module.state_dict().items()}
    assert set(weights.values()) == {torch.float32}


def test_the_code_comes_from_the_version_folder_alone(deepening: Exported, project: Path) -> None:
    served = open_model(deepening.version)
    places = {Path(module.__file__) for module in served.code.modules.values()}
    assert len(places) == 3
    assert all(place.is_relative_to(deepening.version.resolve()) for place in places)
    import shapes.net

    assert Path(shapes.net.__file__).is_relative_to(project)  # the process's own is as it was
    assert type(served.module) is not shapes.net.Deepening
    assert not list(deepening.version.rglob("__pycache__"))
    (deepening.version.parent / "elsewhere").mkdir()
    code = OwnCode(deepening.version.parent / "elsewhere", {"shapes"})
    with code.installed(), pytest.raises(ValueError, match=r"shapes came from .*, outside .*else"):
        code.import_target("shapes.net.Deepening")
    (deepening.version.parent / "elsewhere").rmdir()


def with_format(config: TrainConfig, chosen: str) -> ModuleTask:
    return replace(config.task, serve=replace(config.task.serve, format=chosen))


def test_onnx_alone_refuses_what_it_cannot_express(deepening: Exported) -> None:
    before = tree_digest(deepening.candidate, ())
    task = with_format(deepening.config, "onnx")
    with pytest.raises(ExportRefused, match="Deepening does not export to ONNX"):
        task.export(deepening.model, deepening.dataset.path, deepening.lineage, deepening.candidate)
    assert tree_digest(deepening.candidate, ()) == before


def test_auto_does_not_hide_that_onnx_computes_something_else(
    digits_exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc.tasks.onnx_export.ATOL", -1.0)
    with pytest.raises(ExportRefused, match="of the ONNX model is off by"):
        digits_exported.export(tmp_path / "run" / "candidate")
    assert not (tmp_path / "run" / "candidate").exists()


def made(
    project: Path, digits: Published, out_dir: Path, target: str, **keys: Any
) -> tuple[nn.Module, Path]:
    """An untrained model of the project, and its candidate in the torch layout."""
    config = digits_config(model={"_target_": target, **keys})
    config.task.serve.format = "torch"
    ready = train_config(config)
    model = ready.task.build_model(ready.model, digits.path)
    reference = DatasetRef(digits.name, digits.lineage.digest, str(digits.path))
    lineage = Lineage("run", "a" * 64, "b" * 64, reference)
    return model, ready.task.export(model, digits.path, lineage, out_dir / "candidate")


def test_a_module_that_exports_can_be_packaged_as_torch(
    project: Path, digits: Published, tmp_path: Path
) -> None:
    """Its config makes it, and two of its weights are one."""
    model, candidate = made(project, digits, tmp_path, "shapes.net.TiedConfig", width=64)
    version = candidate / "version"
    assert (version / "model.safetensors").is_file() and not (version / "model.onnx").exists()
    image = np.random.default_rng(0).random((4, 1, 8, 8), np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(image)).numpy()
    served = open_model(version)
    assert np.array_equal(served({"image": image})["logits"], wanted)
    assert served.module.second.weight is served.module.first.weight


@pytest.mark.parametrize(
    ("target", "keys", "said"),
    [
        ("shapes.net.Lucky", MODEL_KEYS, "logits of the packaged module is not what the trained"),
        ("shapes.stray.Stray", MODEL_KEYS, "shapes.stray imports borrowed, which is neither an"),
        ("shapes.ours.Ours", MODEL_KEYS, "shapes.ours imports kernels, which is Lockgate's"),
        ("model.Entry", MODEL_KEYS, "model._target_ is in 'model', a name that a package needs"),
    ],
)
def test_code_that_cannot_ride_in_a_package_is_refused(
    project: Path, digits: Published, tmp_path: Path, target: str, keys: dict, said: str
) -> None:
    with pytest.raises(ExportRefused, match=re.escape(said)) as refused:
        made(project, digits, tmp_path, target, **keys)
    assert str(refused.value).endswith("Nothing was published.")
    assert list(tmp_path.iterdir()) == []


def staged(exported: Exported, folder: Path) -> StagedCandidate:
    return stage_candidate(exported.candidate, folder / "staged", 1 << 26)


def gates_of_contents(
    exported: Exported, folder: Path, serving_env: Path, **changes: Any
) -> dict[str, GateRecord]:
    """The records of the contents gate as every task's gates have it."""
    settings = yaml.safe_load((REPO / "conf" / "gates" / "package.yaml").read_text())["contents"]
    gate = make_plugin(settings, "gates.contents")
    subject = bare_subject(
        staged=staged(exported, folder),
        serving_env=serving_env,
        find_dataset=lambda: exported.dataset.path,
        **changes,
    )
    return {record.name: record for record in run_gate("contents", gate, subject)}


def test_a_serving_environment_without_torch_stops_the_release(
    deepening: Exported, tmp_path: Path
) -> None:
    if not SERVING_ENV.exists():
        pytest.skip(f"{SERVING_ENV} is not there: scripts/setup")
    found = gates_of_contents(deepening, tmp_path, SERVING_ENV)
    release = ".".join(torch.__version__.split(".")[:2])
    requires = found.pop("contents.requires")
    assert requires.verdict == "fail" and requires.required
    assert re.fullmatch(
        rf"the package needs safetensors>=\S+ and torch>={release}; the serving environment has "
        "none: install them there or make the module exportable",
        requires.detail,
    )
    assert {record.verdict for record in found.values()} == {"pass"}
    assert (
        "own code: version/shapes/__init__.py, version/shapes/" in found["contents.runtime"].detail
    )


def test_no_length_of_a_safetensors_header_is_taken_for_a_pickle(tmp_path: Path) -> None:
    for length in range(8, 4096, 8):
        header = b'{"__metadata__":{}}'.ljust(length)
        (tmp_path / "f.safetensors").write_bytes(length.to_bytes(8, "little") + header + b"\1\2.\n")
        assert pickle_kind(tmp_path / "f.safetensors") == "", length


@pytest.fixture(scope="module")
def torch_env() -> Iterator[Path]:
    """A serving environment with torch: the stock one's packages first, then this one's torch."""
    if not SERVING_ENV.exists():
        pytest.skip(f"{SERVING_ENV} is not there: scripts/setup")
    # Not below pytest's own folders, which the user of a confined server cannot enter.
    env = Path(tempfile.mkdtemp(prefix="lockgate-torch-env-"))
    env.chmod(0o755)
    venv.create(env, symlinks=True, with_pip=False)
    (packages,) = env.glob("lib/python3.*/site-packages")
    (stock,) = SERVING_ENV.glob("lib/python3.*/site-packages")
    for part in ("pytriton", "nvidia_pytriton.libs"):
        (packages / part).symlink_to((stock / part).resolve())
    torch_place = Path(torch.__file__).parents[1]
    (packages / "both.pth").write_text(f"{stock.resolve()}\n{torch_place}\n")
    yield env
    shutil.rmtree(env)


@pytest.mark.triton
def test_a_triton_whose_environment_has_torch_serves_it(
    deepening: Exported, torch_env: Path, tmp_path: Path
) -> None:
    package = EphemeralServer("digits", deepening.candidate, "digits")
    arrays = read_arrays(deepening.dataset.path, "holdout")
    images = np.array(arrays.inputs["image"][:128])
    with torch.no_grad():
        wanted = deepening.model.eval()(torch.from_numpy(images)).numpy()
    built_on = (SERVING_ENV.resolve(), Path(torch.__file__).parents[1])
    with (
        confinement(read_only=built_on) as confined,
        serve_packages([package], torch_env, confined, PATIENCE) as (running,),
    ):
        for example in golden.read_examples(deepening.candidate):
            assert golden.differences(example, running.infer(example.inputs)) == []
        found = running.infer({"image": images})["logits"]
        assert np.allclose(found, wanted, atol=1e-5)
        with pytest.raises(InferError, match="shape"):
            running.infer({"image": images[:, :, :4]})
        served = ServedPackages(running, None)
        records = gates_of_contents(deepening, tmp_path, torch_env, start_servers=lambda: served)
    assert {name: record.verdict for name, record in records.items()} == dict.fromkeys(
        records, "pass"
    )
    assert "torch 2" in records["contents.requires"].detail
