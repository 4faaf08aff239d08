"""A package opens its model by the class that it names, with the runtime files it carries."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from serving.runtime.arrays_model import ArraysModel
from serving.runtime.package import FILE, open_model, runtime_files
from serving.runtime.tabular_model import TabularModel
from tests.serving.runtime.test_models import write_arrays, write_classifier, write_tabular
from tests.serving.runtime.test_transform import ROW, TRANSFORM, columns

REPO = Path(__file__).resolve().parents[3]
SERVE_PYTHON = REPO / ".venv-serve" / "bin" / "python"
TABULAR = "lockgate_runtime.tabular_model.TabularModel"
ARRAYS = "lockgate_runtime.arrays_model.ArraysModel"
CLASSIFIER = "lockgate_runtime.text_classifier.TextClassifier"
TEXT = "lockgate_runtime.text_model.TextModel"
CORE = {"__init__.py", "errors.py", "package.py", "triton_model.py"}


def name_runtime(version: Path, target: str) -> Path:
    (version / FILE).write_text(json.dumps({"_target_": target}))
    return version


def carry_runtime(version: Path, target: str) -> Path:
    """Make the version folder whole: it names the class and has the runtime files of it."""
    (version / "lockgate_runtime").mkdir()
    for file in runtime_files(target):
        shutil.copyfile(file, version / "lockgate_runtime" / file.name)
    return name_runtime(version, target)


def names(target: str) -> set[str]:
    return {path.name for path in runtime_files(target)}


def test_a_package_carries_what_its_class_imports_and_no_more() -> None:
    assert names("digits.serve.Digits") == CORE
    assert names(ARRAYS) == CORE | {
        "arrays_model.py",
        "array_inputs.py",
        "batching.py",
        "session.py",
    }
    tabular = {"tabular_model.py", "tabular_transform.py", "features.py", "labels.py"}
    assert names(TABULAR) == CORE | tabular | {"batching.py", "session.py"}
    assert {"windows.py", "text_model.py"} <= names(TEXT) and "labels.py" not in names(TEXT)
    with pytest.raises(ValueError, match="has no module 'tabluar_model'"):
        runtime_files("lockgate_runtime.tabluar_model.TabularModel")


def test_the_class_that_runtime_json_names_is_opened(tmp_path: Path) -> None:
    tabular = name_runtime(write_tabular(tmp_path / "tabular", TRANSFORM), TABULAR)
    arrays = name_runtime(write_arrays(tmp_path / "arrays"), ARRAYS)
    assert isinstance(open_model(tabular), TabularModel)
    assert isinstance(open_model(arrays, {"threads": "2"}), ArraysModel)


OWN = """
from lockgate_runtime.errors import InvalidInput
from .scale import FACTOR

class Own:
    @classmethod
    def load(cls, version_dir, settings):
        return cls()
    def __call__(self, inputs):
        return {"y": inputs["x"] * FACTOR}
    def answer(self, requests):
        return [self(one) if "x" in one else InvalidInput("x is missing") for one in requests]
"""


def write_own(version: Path, factor: int) -> Path:
    (version / "digits").mkdir(parents=True, exist_ok=True)
    (version / "digits" / "__init__.py").touch()
    (version / "digits" / "serve.py").write_text(OWN)
    (version / "digits" / "scale.py").write_text(f"FACTOR = {factor}\n")
    return name_runtime(version, "digits.serve.Own")


def test_a_tasks_own_class_comes_out_of_the_version_folder(tmp_path: Path) -> None:
    inputs = {"x": np.array([1.0])}
    one, two = (write_own(tmp_path / str(factor), factor) for factor in (2, 3))
    assert [open_model(folder)(inputs)["y"][0] for folder in (one, two, one)] == [2, 3, 2]
    assert open_model(write_own(one, 5))(inputs)["y"][0] == 5  # written again in this process
    good, bad = open_model(one).answer([inputs, {}])
    assert good["y"][0] == 5 and isinstance(bad, ValueError) and str(bad) == "x is missing"
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("lockgate_runtime.arrays_model.ArrayModel", "has no 'ArrayModel'"),
        ("json.JSONDecoder", "names the module 'json', which .* does not hold"),
        ("digits.serve.Other", "has no 'Other'"),
        ("digits.train.Own", "names the module 'digits.train', which"),
    ],
)
def test_a_class_that_is_not_there_is_refused(tmp_path: Path, target: str, message: str) -> None:
    write_own(tmp_path, 2)
    with pytest.raises(ValueError, match=message):
        open_model(name_runtime(tmp_path, target))


ALONE = """
import json, sys
sys.dont_write_bytecode = True
import numpy as np
sys.path.insert(0, sys.argv[1])
from lockgate_runtime.package import open_model
assert np.__version__ < "2", np.__version__
request = {name: np.array(value, dtype) for name, (value, dtype) in json.loads(sys.argv[2]).items()}
(answer,) = open_model(sys.argv[1]).answer([request])
texts = [name for name, value in answer.items() if value.dtype == object]
print(json.dumps({name: value.astype(str).tolist() if name in texts else value.tolist()
                  for name, value in answer.items()}))
"""


@pytest.mark.parametrize("target", [TABULAR, ARRAYS, CLASSIFIER])
def test_a_package_works_alone_in_the_serving_environment(tmp_path: Path, target: str) -> None:
    if not SERVE_PYTHON.is_file():
        pytest.skip(".venv-serve is not there: scripts/setup")
    if target == TABULAR:
        version, request = write_tabular(tmp_path, TRANSFORM), columns([ROW])
    elif target == ARRAYS:
        version, request = write_arrays(tmp_path), {"image": np.ones((1, 2, 2), np.float32)}
    else:
        version, request = write_classifier(tmp_path), {"text": np.array([["low"]], object)}
    carry_runtime(version, target)
    plain = {
        name: (
            [one.decode() for one in value] if isinstance(value[0], bytes) else value.tolist(),
            str(value.dtype),
        )
        for name, value in request.items()
    }
    done = subprocess.run(
        [SERVE_PYTHON, "-c", ALONE, str(version), json.dumps(plain)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PATH": "/usr/bin"},
    )
    assert done.returncode == 0, done.stderr
    here = open_model(version)(request)
    for name, value in json.loads(done.stdout).items():
        if here[name].dtype != object:
            np.testing.assert_allclose(np.array(value), here[name], rtol=1e-5)
