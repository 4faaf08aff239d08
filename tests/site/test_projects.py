"""Three projects of somebody else, made outside the repository and never imported by it.

Each goes from its data through Slurm, the gates, the signature and the fleet to an answer at both
edges, and Lockgate's own checkout stays as it was.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.site, pytest.mark.slow, pytest.mark.timeout(1800)]

REPO = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Each command belongs to an identity; in the guide it is typed as on a site with a login each.
COMMANDS = f"""\
as() {{ LOCKGATE_PROJECT="$PWD" {REPO}/scripts/site as "$@"; }}
lockgate() {{
  case "$1" in
    new) {REPO}/.venv/bin/lockgate "$@" ;;
    release) as release lockgate "$@" ;;
    *) as train lockgate "$@" ;;
  esac
}}
fab() {{ as deploy fab "$@"; }}
python() {{ {REPO}/.venv/bin/python "$@"; }}
"""


@pytest.fixture(autouse=True)
def lockgate_stays_as_it_is() -> Iterator[None]:
    """No project edits Lockgate: its `git status` is the same afterwards."""
    before = git_status()
    yield
    assert git_status() == before


@pytest.fixture()
def folder() -> Iterator[Path]:
    """A folder that every identity can enter, as pytest's own are not."""
    made = Path(tempfile.mkdtemp(prefix="lockgate-projects-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def git_status() -> str:
    argv = ["git", "-c", "safe.directory=*", "-C", str(REPO), "status", "--porcelain"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def shell(script: str, folder: Path) -> str:
    """What bash prints for `script`, typed in `folder`."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", COMMANDS + script], cwd=folder,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def count_lines(files: dict[str, str], suffix: str) -> int:
    """Lines that a person wrote into files of one kind: neither empty nor a comment."""
    return sum(
        1
        for name, text in files.items()
        for line in text.splitlines()
        if name.endswith(suffix) and line.strip() and not line.strip().startswith("#")
    )


def report_lines(name: str, files: dict[str, str]) -> tuple[int, int]:
    """Lines of YAML and of Python that a person wrote; printed, so that the report has them."""
    written = count_lines(files, ".yaml"), count_lines(files, ".py")
    print(f"{name}: a person wrote {written[0]} lines of YAML and {written[1]} lines of Python")
    return written


def write_files(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def deploy(root: Path, name: str) -> None:
    """From the data to the fleet, with the five commands of a project's README."""
    shell(f"lockgate data prepare data={name}", root)
    run = json.loads(shell(f"lockgate train task={name} --json", root))["run"]
    shell(f"lockgate logs {run} -f", root)
    shell(f"lockgate release run={run}", root)
    shell(f"fab deploy --model {name}", root)


def answers(box: Any, model: str, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The outputs of one request by name, from each edge."""
    found = []
    for edge in box.site.edges.values():
        url = f"http://{edge.address}:{edge.http_port}/v2/models/{model}/infer"
        body = json.dumps({"inputs": inputs}).encode()
        with urllib.request.urlopen(url, data=body, timeout=30) as answer:
            outputs = json.load(answer)["outputs"]
        found.append({output["name"]: output["data"] for output in outputs})
    return found


def test_the_tour_of_the_guide_reads_a_digit_at_both_edges(box, folder) -> None:
    blocks = BLOCK.findall((REPO / "docs" / "extending.md").read_text())
    files = {name: text for _, name, text in blocks if name}
    root, script = folder / "digits", ""
    for language, name, text in blocks:
        if name:
            script += f"cat > {name} <<'END OF FILE'\n{text}END OF FILE\n"
        elif language == "sh":
            script += text
    said = shell(script, folder)
    assert re.findall(r"^digit (\d)$", said, re.MULTILINE) == ["0", "0"], said
    yaml, python = report_lines("digits", files)
    assert python <= 80 and yaml <= 40
    for name, text in files.items():
        assert (root / name).read_text() == text


DIABETES = {
    "conf/data/diabetes.yaml": """\
_target_: hpc.data.tabular.TabularDataset
name: diabetes
source:
  folder: ${project:}/data
  files: {patients: diabetes.csv}
features:
  - {name: sex, kind: category}
  - {name: age, kind: number}
  - {name: bmi, kind: number}
  - {name: bp, kind: number}
  - {name: s1, kind: number}
  - {name: s2, kind: number}
  - {name: s3, kind: number}
  - {name: s4, kind: number}
  - {name: s5, kind: number}
  - {name: s6, kind: number}
target: {name: progression, kind: regression}
split:
  fractions: {train: 0.6, validation: 0.1, holdout: 0.3}
""",
    "conf/gates/diabetes.yaml": """\
defaults:
  - tabular_regression
  - _self_
""",
}


@pytest.mark.full
def test_a_table_is_served_without_a_line_of_python(box, folder) -> None:
    from sklearn.datasets import load_diabetes

    root = folder / "diabetes"
    shell("lockgate new diabetes --kind tabular", folder)
    (root / "data" / "diabetes.csv").unlink()
    table = load_diabetes(as_frame=True, scaled=False).frame
    table["sex"] = table["sex"].map({1.0: "one", 2.0: "two"})
    table.rename(columns={"target": "progression"}).to_csv(root / "data/diabetes.csv", index=False)
    write_files(root, DIABETES)
    yaml, python = report_lines("diabetes", DIABETES)
    assert python == 0 and yaml <= 40
    deploy(root, "diabetes")
    patient = table.iloc[0]
    inputs = [{"name": "sex", "shape": [1, 1], "datatype": "BYTES", "data": [patient["sex"]]}]
    inputs += [
        {"name": name, "shape": [1, 1], "datatype": "FP32", "data": [float(patient[name])]}
        for name in ("age", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    ]
    first, second = (answer["progression"][0] for answer in answers(box, "diabetes", inputs))
    assert first == second
    low, high = table["target"].min(), table["target"].max()
    assert low <= first <= high


TOPICS = {
    "conf/model/topics.yaml": """\
_target_: hpc.models.huggingface.HuggingFaceModel
config:
  model_type: distilbert
  dim: 64
  n_layers: 2
  n_heads: 2
  hidden_dim: 128
  max_position_embeddings: 64
""",
    "conf/task/topics.yaml": """\
# @package _global_
defaults:
  - override /model: topics
  - override /optim: adamw
task:
  _target_: hpc.tasks.transformers.TransformersTask
  name: topics
  dataset: topics
  serve: {model: topics}
steps: 200
micro_batch_size: 32
""",
}


@pytest.mark.full
def test_a_hugging_face_classifier_is_served_from_its_config(box, folder) -> None:
    root = folder / "topics"
    shell("lockgate new topics --kind transformers", folder)
    write_files(root, TOPICS)
    _, python = report_lines("topics", TOPICS)
    assert python == 0
    deploy(root, "topics")
    text = "The invoice was charged twice. Please help."
    inputs = [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]
    first, second = answers(box, "topics", inputs)
    assert first == second
    assert first["label"] == ["payment"]
    assert abs(sum(first["probabilities"]) - 1) < 1e-3
