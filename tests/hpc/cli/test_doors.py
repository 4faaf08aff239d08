"""Doors: a string that is no name is refused where a person types it, with what to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf import options
from hpc.cli.main import main
from serving.release.command import main as release
from tests.conf.test_names import ODD
from tests.hpc.jobs.standin import publish_toy

TASK = f"task={options('task')[0]}"
TYPED = {text: valid for text, valid in ODD.items() if text and "\0" not in text}


@pytest.fixture()
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    publish_toy(tmp_path)
    return tmp_path


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence on standard error, in letters that a terminal only shows."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n") and err[:-1].isprintable()
    assert "letters A-Z a-z 0-9 _" in err
    return err[:-1]


@pytest.mark.parametrize("key", ["task.name", "task.dataset", "task.serve.model"])
@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize(("text", "valid"), TYPED.items())
def test_train_refuses_an_odd_name_before_it_writes(key, quoted, text, valid, site, capsys):
    value = f"'{text}'" if quoted else text
    others = [TASK, "cluster=local", "seed=3"]
    if key != "task.dataset":
        others.append("task.dataset=toy")
    assert main(["train", *others, f"{key}={value}"]) == 2
    sentence = refusal(capsys)
    assert sentence.startswith(f"lockgate: {key}=")
    if valid:
        assert sentence.endswith(f"Type: lockgate train {' '.join(others)} {key}={valid}")
    assert not (site / "runs").exists()


def test_a_sweep_is_refused_before_its_first_run(site, capsys):
    names = "task.name=good,'not good'"
    assert main(["train", "-m", TASK, "cluster=local", "task.dataset=toy", names]) == 2
    assert refusal(capsys).endswith("task.name=not_good")
    assert not (site / "runs").exists()


@pytest.mark.parametrize("verb", ["show", "logs", "cancel", "export", "release"])
@pytest.mark.parametrize(("text", "valid"), TYPED.items())
def test_verbs_refuse_a_word_that_no_run_is_called(verb, text, valid, site, capsys):
    if text == "x" * 300:
        valid = "x" * 94
    word = f"run='{text}'" if verb == "release" else f"run={text}"
    assert main([verb, word]) == 2
    sentence = refusal(capsys)
    before = "run=" if verb == "release" else ""
    if valid:
        assert sentence.endswith(f"Type: lockgate {verb} {before}{valid}")


def test_release_refuses_an_odd_run_whose_gates_were_chosen(site, capsys):
    assert release(["run='../../x'", f"gates={options('gates')[0]}"]) == 2
    assert refusal(capsys).endswith("Type: lockgate release run=x")


@pytest.mark.parametrize("text", ["a b", "a\nb", "..x", "\u0430bc", "a.b", "x" * 300])
def test_a_dataset_of_an_odd_name_is_not_prepared(text, site, capsys):
    code = main(["data", "prepare", f"data={options('data')[0]}", f"data.name='{text}'"])
    if text == "a.b":  # a name: refused only later, for its source
        return
    assert code == 2
    assert "Type: lockgate data prepare data=NAME data.name=" in refusal(capsys)


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("a b", "a_b"),
        ("n\u0435t", "n_t"),
        ("a\u2028b", "a_b"),
        ("3d", "my_3d"),
        ("x" * 200, "x" * 62),
    ],
)
def test_a_project_of_an_odd_name_is_not_made(name, valid, tmp_path, capsys):
    assert main(["new", str(tmp_path / name)]) == 2
    assert refusal(capsys).endswith(f"Type: lockgate new {tmp_path}/{valid}")
    assert list(tmp_path.iterdir()) == []
