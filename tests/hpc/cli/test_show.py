"""`lockgate show` and `lockgate compare` on run folders as jobs and accidents leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conf import compose, options
from hpc.cli.main import main
from hpc.jobs.run.files import write_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.run.operators import OperatorCount, OperatorsFile
from hpc.jobs.spec.job_spec import Environment, Source
from hpc.jobs.spec.resolve import resolve
from serving.artifact.lineage import DatasetRef
from tests.hpc.cli.test_verbs import finished
from tests.hpc.jobs.spec.test_job_spec import spec_of

TASK = options("task")[0]
ONE, OTHER = "t-20260101-000001-aaaaaa", "t-20260101-000002-bbbbbb"


@pytest.fixture()
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    return tmp_path


def trained(site: Path, name: str, auc: float, *words: str) -> Run:
    """A run of a real task with two evaluations and a checkpoint of the first one's step."""
    run = finished(site, name)
    config = resolve(compose("train", [f"task={TASK}", *words]), [])
    run.spec_path.unlink()
    spec_of(config, task=TASK).write(run.spec_path)
    lines = [
        {"step": 5, "loss": 0.5, "step_seconds": 0.25}, {"step": 5, "validation_auc": auc},
        {"step": 10, "loss": 0.25, "step_seconds": 0.25}, {"step": 10, "validation_auc": auc / 2},
    ]  # fmt: skip
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run.folder / "checkpoints" / "00000005").mkdir(parents=True)
    (run.folder / "checkpoints" / "00000005" / "manifest.json").write_text("{}")
    return run


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_show_has_what_a_run_is_and_became(site, capsys):
    run = trained(site, ONE, 0.8, "seed=7")
    text = shown(capsys, "show", "last")
    for words in (
        f"run        {ONE}",
        "state      finished",
        f"task       {TASK}",
        f"@{'b' * 12}",
        "slurm: 2 nodes x 1 ranks",
        "requeues   0",
        "0.8 (highest)",
        f"step 5, validation_auc 0.8: {run.folder}/checkpoints/00000005",
        "candidate       none",
        run.spec.digest,
        f"\nrepeat it: lockgate train task={TASK} seed=7\n",
    ):
        assert words in text
    assert "BROKEN" not in text
    assert "\x1b" not in text


def test_show_has_a_row_for_each_operator_and_none_without(site, capsys):
    run = trained(site, ONE, 0.8)
    assert "operator" not in shown(capsys, "show", ONE)
    run.operators.mkdir()
    for rank, served in enumerate(({"triton": 8}, {"reference": 8, "reason": "no GPU\x1b[31m"})):
        counts = {"rope": OperatorCount(**served), "swiglu": OperatorCount(triton=5)}
        write_run_file(run.operators / f"{rank}.json", OperatorsFile(rank, 10, counts))
    out = shown(capsys, "show", ONE)
    rows = [line.split("  ") for line in out.splitlines() if line.startswith(("rope", "swiglu"))]
    assert [[cell.strip() for cell in row if cell] for row in rows] == [
        ["rope", "triton on 1 rank, torch on 1 rank", "16", "no GPU\\x1b[31m"],
        ["swiglu", "triton", "10"],
    ]
    (run.operators / "1.json").write_text("{")
    assert "BROKEN" in shown(capsys, "show", ONE)
    found = json.loads(shown(capsys, "show", ONE, "--json"))["operators"]
    assert [(one["operator"], one["calls"]) for one in found] == [("rope", 8), ("swiglu", 5)]


def test_show_as_json(site, capsys):
    trained(site, ONE, 0.8, "seed=7")
    found = json.loads(shown(capsys, "show", "t-2026", "--json"))
    assert (found["run"], found["state"], found["problems"]) == (ONE, "finished", [])
    assert found["spec"]["config"]["seed"] == 7
    assert found["best_checkpoint"]["step"] == 5
    assert found["metrics"]["loss"]["best"] == 0.25
    assert found["evaluations"][1] == {"step": 10, "validation_auc": 0.4}
    assert found["command"] == f"lockgate train task={TASK} seed=7"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("spec.yaml", "{{{"),
        ("job.json", "[]"),
        ("status.json", '{"state": "fini'),
        ("failure.json", "7"),
        ("metrics.jsonl", "nonsense\n"),
        ("candidate/candidate.json", '{"_target_": "os.getcwd"}'),
    ],
)
def test_a_broken_file_is_named_and_hides_no_other(file, text, site, capsys, monkeypatch):
    monkeypatch.setattr("hpc.jobs.slurm.jobs.controller_is_up", lambda _: False)
    run, other = trained(site, ONE, 0.8), trained(site, OTHER, 0.9, "seed=2")
    path = run.folder / file
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
    out = shown(capsys, "show", ONE)
    assert "BROKEN" in out and path.name in out
    found = json.loads(shown(capsys, "show", ONE, "--json"))
    assert len(found["problems"]) == 1
    if file != "metrics.jsonl":
        assert found["metrics"]["validation_auc"]["best"] == 0.8
    if file != "spec.yaml":
        assert found["command"] == f"lockgate train task={TASK}"
    out = shown(capsys, "compare", ONE, other.name)
    assert "0.9" in out
    assert ("BROKEN" in out) == (file in ("spec.yaml", "metrics.jsonl"))


def test_a_spec_with_anything_in_it_is_shown(site, capsys):
    run, other = finished(site, ONE), trained(site, OTHER, 0.9)
    run.spec_path.unlink()
    odd: Any = 7
    spec_of(
        {"cluster": [1], "optim": "x\x1b[31m", "model": None, "steps": 10**400},
        source=Source(odd, odd, odd), project=Source(odd, None, odd), task="gone",
        dataset=DatasetRef(odd, odd, odd), environment=Environment(odd, odd),
    ).write(run.spec_path)  # fmt: skip
    out = shown(capsys, "show", ONE)
    assert "repeat it: no command does: no task here is called gone." in out
    assert "\x1b" not in out + shown(capsys, "compare", ONE, other.name)
    assert json.loads(shown(capsys, "show", ONE, "--json"))["command"] is None
    assert json.loads(shown(capsys, "compare", ONE, other.name, "--json"))["runs"][0]["digests"]


def test_compare_has_what_differs_and_the_metrics(site, capsys):
    trained(site, ONE, 0.8)
    trained(site, OTHER, 0.9, "seed=2", "optim.lr=0.5")
    rows = {line.split("  ")[0]: line.split() for line in
            shown(capsys, "compare", "aaaaaa", "bbbbbb").splitlines()}  # fmt: skip
    assert rows["seed"] == ["seed", "1", "2"]
    assert rows["optim.lr"] == ["optim.lr", "0.001", "0.5"]
    assert rows["source"] == ["source", "a" * 12, "a" * 12]
    assert rows["validation_auc (highest)"][-2:] == ["0.8", "0.9"]
    assert rows["validation_auc (last)"][-2:] == ["0.4", "0.45"]
    assert rows["step time, s"][-2:] == ["0.25", "0.25"]
    assert "steps" not in rows and "environment" not in rows


def test_compare_by_a_metric_puts_the_best_first(site, capsys):
    names = [trained(site, f"t-20260101-00000{n}-aaaaa{n}", 0.1 * n, f"seed={n}").name
             for n in range(1, 6)]  # fmt: skip
    words = ["compare", *names, "--by", "validation_auc"]
    found = json.loads(shown(capsys, *words, "--json"))
    assert [run["run"] for run in found["runs"]] == names[::-1]
    assert found["differences"] == {"seed": [{"value": n} for n in (5, 4, 3, 2, 1)]}
    lines = shown(capsys, *words).splitlines()  # as many runs are rows
    assert [line.split()[0] for line in lines[1:]] == names[::-1]
    assert main([*words[:-1], "validation_acu"]) == 2
    assert "Nearest: validation_auc" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["aaaaaa"], ["aaaaaa", ONE], ["aaaaaa", "last"]])
def test_a_run_is_not_compared_with_itself(words, site, capsys):
    trained(site, ONE, 0.8)
    assert main(["compare", *words]) == 2
    assert "name two runs or more" in capsys.readouterr().err
