"""`lockgate pin`, and what `lockgate show` has of pins and of copies in a store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc.cli.main import main
from hpc.jobs.run.files import write_run_file
from hpc.jobs.run.stored import CONFIRMED, StoredFile, notes_folder
from tests.hpc.cli.test_show import ONE, shown, trained


@pytest.fixture()
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    return tmp_path


def test_a_checkpoint_is_pinned_shown_and_taken_off_again(site, capsys):
    run = trained(site, ONE, 0.8, "checkpoint_store=s3://bucket/team")
    assert shown(capsys, "pin", ONE) == f"{ONE}@5 is pinned. Pinned: 5\n"
    found = json.loads(shown(capsys, "pin", "last@5", "--json"))
    assert found == {"run": ONE, "step": 5, "pinned": [5]}
    text = shown(capsys, "show", ONE)
    assert "of steps 5 (pinned)" in text
    assert "in the store    none  (s3://bucket/team)" in text
    notes = notes_folder(run.folder / "checkpoints", 5)
    notes.mkdir()
    write_run_file(notes / CONFIRMED, StoredFile("s3://bucket/team", "0" * 64, "2026-01-01"))
    assert "in the store    of steps 5  (s3://bucket/team)" in shown(capsys, "show", ONE)
    found = json.loads(shown(capsys, "show", ONE, "--json"))
    assert (found["pinned"], found["stored"]) == ([5], [5])
    assert shown(capsys, "pin", ONE, "--off") == f"{ONE}@5 is no longer pinned. Pinned: none\n"
    assert "(pinned)" not in shown(capsys, "show", ONE)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([f"{ONE}@7"], f"no checkpoint of step 7. Nearest: 5. As in lockgate pin {ONE}@5"),
        ([f"{ONE}@five"], f"a step is a number, as in lockgate pin {ONE}@100"),
        ([f"{ONE}@"], "a step is a number"),
        (["t-2026@5", "--off"], "is not pinned. Pinned: none"),
        (["nobody@5"], "there is no run 'nobody'"),
        ([ONE, "last"], "name one run"),
    ],
)
def test_a_mistake_is_a_sentence(words, sentence, site, capsys):
    trained(site, ONE, 0.8)
    assert main(["pin", *words]) == 2
    assert sentence in capsys.readouterr().err
