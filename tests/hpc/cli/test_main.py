from __future__ import annotations

import subprocess
import sys

import pytest

from conf import ConfigError
from hpc.cli import main as cli
from hpc.jobs.errors import JobError, SchedulerUnavailable, UsageError

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
HEAVY = ("torch", "deepspeed", "mlflow", "transformers", "pandas", "sklearn", "pyarrow", "onnx")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help"],
        ["train", "task=flights", "--cfg", "job"],
        ["ls", "--help"],
        ["ls"],
        ["logs", "nothing-of-this-name"],
        ["show", "--help"],
        ["show", "nothing-of-this-name"],
        ["compare", "nothing-of-this-name", "nor-this"],
        ["completion", "bash"],
        ["trian"],
    ],
)
def test_the_command_line_imports_nothing_heavy(words, tmp_path):
    code = (
        "import sys\nfrom hpc.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True,
        env=ENVIRONMENT | {"LOCKGATE_SITE": str(tmp_path)},
    )  # fmt: skip
    assert done.stderr.endswith("loaded: []\n"), done.stderr


def test_composing_is_not_even_needed_for_help():
    code = (
        "import sys; from hpc.cli.main import main; main(['--help']); print('hydra' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


def test_help_names_every_verb_and_every_exit_code(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert [verb for verb in cli.VERBS if f"  {verb} " not in text] == []
    codes = ("0", "1", "2", "3", "4", "5", "130")
    assert [code for code in codes if f"\n  {code} " not in text] == []


def test_no_verb_is_a_mistake_that_shows_help(capsys):
    assert cli.main([]) == 2
    assert "usage: lockgate VERB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typo", "meant"), [("trian", "train"), ("log", "logs"), ("lst", "ls"), ("cancle", "cancel")]
)
def test_a_mistyped_verb_is_answered_with_the_nearest(typo, meant, capsys):
    assert cli.main([typo]) == 2
    assert capsys.readouterr().err == (
        f"lockgate: no verb {typo!r}. Did you mean: lockgate {meant}\n"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("steps=0: must be at least 1"), 2),
        (UsageError("name a run"), 2),
        (JobError("sbatch refused the job"), 1),
        (SchedulerUnavailable("the Slurm controller does not answer"), 5),
        (PermissionError(13, "Permission denied", "/runs"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_went_wrong_is_a_sentence_and_a_code(error, code, monkeypatch, capsys):
    def verb(_arguments):
        raise error

    monkeypatch.setattr("hpc.cli.ls.main", verb)
    assert cli.main(["ls"]) == code
    said = capsys.readouterr().err
    assert "lockgate: " in said
    assert "Traceback" not in said


def test_a_bug_is_not_dressed_up_as_a_mistake(monkeypatch):
    def verb(_arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("hpc.cli.ls.main", verb)
    with pytest.raises(ZeroDivisionError):
        cli.main(["ls"])


def test_a_reader_that_leaves_is_no_error(tmp_path):
    command = f"{sys.executable} -m hpc.cli.main train task=flights --cfg job | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_every_verb_can_be_imported():
    from importlib import import_module

    for verb, (_, target) in cli.VERBS.items():
        module, function = target.split(":")
        assert callable(getattr(import_module(module), function)), verb
