"""`fab scale` as it is typed: what it prints, its exit codes, and its lines in the history."""

from __future__ import annotations

import re

import pytest
from invoke import Collection, Program

from conf.errors import INCOMPLETE, REFUSED
from serving.fleet.cli import command, scale_tasks
from serving.fleet.cli.history import history_lines, rollout_history
from tests.serving.fleet.autoscaled import memory_folder
from tests.serving.fleet.scaled import Site


@pytest.fixture
def site(monkeypatch):
    with memory_folder() as folder:
        yield Site(folder, monkeypatch)


def test_history_has_who_scaled_what_and_why(site):
    site.hosts(3, reason="night")
    site.instances(2)
    lines = history_lines(rollout_history(site.on, None, "2"))
    assert re.search(r"scaled +toy 2 +ordered .*scale-\d+\n +2 instances$", lines[0])
    assert re.search(r"standby +e3 +ordered .*host-\d+\n +night$", lines[1])
    assert [row.action for row in rollout_history(site.on, "toy", "2")] == ["scaled", "deploy"]


def typed(*words: str) -> int:
    """The exit code of `fab scale` with these words, as invoke has it."""
    try:
        Program(namespace=Collection(scale_tasks.scale)).run(["fab", "scale", *words])
    except SystemExit as ended:
        return ended.code
    return 0


def test_the_commands_of_the_guide_do_what_it_says(site, monkeypatch, capsys):
    monkeypatch.setattr(command, "controls", lambda config: site.on)
    night = ("--hosts", "3", "--region", "us-east", "--reason", "night")
    for words in (night, ("--model", "toy", "--instances", "2")):
        assert typed(*words, "--plan") == 0
    assert site.driver.changes == []
    assert typed(*night) == typed("--model", "toy", "--instances", "2") == 0
    assert site.taking == {"e0", "e1", "e2"} and site.driver.machines["e0"].loaded == 2
    assert typed(*night) == typed("--model", "toy", "--instances", "default") == 0
    assert typed("--hosts", "5", "--region", "us-east") == REFUSED
    site.driver.machines["e3"].dead = site.driver.machines["e3"].doomed = {2}
    assert typed("--hosts", "4", "--region", "us-east") == INCOMPLETE
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "e3: drained, on standby"
    assert any(re.fullmatch(r" +\d+\.\d s  e3 +standby +night", line) for line in out)
    assert "no change: 3 hosts take traffic in us-east." in out
    assert "1 instance of toy on each of 4 hosts; 4 were changed." in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "takes one of --instances and --hosts"),
        (["--hosts", "2", "--instances", "2"], "takes one of --instances and --hosts"),
        (["--hosts", "two", "--region", "us-east"], "--hosts with a number, not two"),
        (["--hosts", "-1", "--region", "us-east"], "--hosts with a number, not -1"),
        (["--instances", "1e3", "--model", "toy"], "--instances with a number, not 1e3"),
    ],
)
def test_words_that_are_no_order_are_refused_with_what_to_type(
    words, sentence, monkeypatch, capsys
):
    monkeypatch.setattr(command, "controls", lambda config: None)
    code, said = typed(*words), capsys.readouterr().err
    assert code == 2 and sentence in said and "Type: fab scale --hosts 2" in said
