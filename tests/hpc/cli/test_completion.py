"""The scripts of `lockgate completion`, sourced by the shells that they are for."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from hpc.cli.completion import RUN_VERBS, completion_script
from hpc.cli.main import VERBS, main

RUNS = ["lm-20260101-000001-aaaaaa", "lm-20260102-000001-bbbbbb", "x-20260101-000001-cccccc"]
EVIL = ["$(touch pwned)", "lm-`touch pwned`", "lm-;touch pwned", "lm-a b", "lm-a\nb", "-rf"]


@pytest.fixture()
def runs(tmp_path: Path) -> Path:
    runs = tmp_path / "it's the $HOME of runs"
    for name in [*RUNS, *EVIL]:
        (runs / name).mkdir(parents=True)
        (runs / name / "spec.yaml").write_text("")
    (runs / "snapshots").mkdir()
    for name in ["lr", "width", *EVIL]:
        (runs / "sweeps" / name).mkdir(parents=True)
        (runs / "sweeps" / name / "ledger.jsonl").write_text("")
    (runs / "sweeps" / "none").mkdir()
    return runs


def in_bash(runs: Path, line: str) -> list[str]:
    """The completions of `line`, split as bash splits it: at blanks and around each `=`."""
    words = [
        part for word in line.split(" ") for part in (word.replace("=", " = ").split() or [""])
    ]
    if line.endswith("="):
        words[-1:] = ["="]
    script = completion_script("bash", runs) + (
        f"COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}\n"
        f"COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}\n"
        "_lockgate\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    return completions(["bash", "--norc", "-c", script], runs)


def in_zsh(runs: Path, line: str) -> list[str]:
    """The same, where `compadd` prints its words that begin with the one being typed."""
    words = line.split(" ")
    prelude = (
        "compdef() { }\n"
        "compset() { PREFIX=${PREFIX#run=} }\n"
        "compadd() { print -rl -- ${(M)${(P)2}:#${PREFIX}*} }\n"
        f"words=({shlex.join(words)}) CURRENT={len(words)} PREFIX={shlex.quote(words[-1])}\n"
    )
    script = prelude + completion_script("zsh", runs) + "_lockgate\n"
    return completions(["zsh", "-f", "-c", script], runs)


def completions(command: list[str], runs: Path) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, cwd=runs.parent, check=False)
    assert done.stderr == ""
    assert list(runs.parent.rglob("pwned")) == []
    return [line for line in done.stdout.splitlines() if line]


SHELLS = [
    pytest.param(in_bash, id="bash"),
    pytest.param(
        in_zsh,
        id="zsh",
        marks=pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here"),
    ),
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lockgate ", list(VERBS)),
        ("lockgate c", ["compare", "cancel", "completion"]),
        ("lockgate --project DIR sh", ["show"]),
        ("lockgate show ", RUNS),
        ("lockgate compare lm-20260101-000001-aaaaaa lm-", RUNS[:2]),
        ("lockgate logs -f x", RUNS[2:]),
        ("lockgate logs zz", []),
        ("lockgate release run=lm-20260102", RUNS[1:2]),
        ("lockgate export run=", RUNS),
        ("lockgate ls --sweep ", ["lr", "width"]),
        ("lockgate ls --sweep l", ["lr"]),
        ("lockgate ls ", []),
        ("lockgate train task=", []),
        ("lockgate train ", []),
    ],
)
def test_verbs_and_runs_are_offered(shell, line, offered, runs):
    assert sorted(shell(runs, line)) == sorted(offered)


@pytest.mark.parametrize("shell", SHELLS)
def test_without_a_run_there_is_none_to_offer(shell, tmp_path):
    assert shell(tmp_path / "runs", "lockgate show ") == []


def test_the_script_has_the_sites_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    assert main(["completion", "bash"]) == 0
    assert f"runs={tmp_path}/runs" in capsys.readouterr().out


def test_the_verbs_that_take_a_run_are_verbs():
    assert set(RUN_VERBS) <= set(VERBS)
