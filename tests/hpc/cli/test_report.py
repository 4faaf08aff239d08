from __future__ import annotations

import pytest

from hpc.cli.main import main
from tests.hpc.report.written_runs import write_run

FIRST, SECOND = "flights-20260101-000001-aaaaaa", "flights-20260101-000002-bbbbbb"


@pytest.fixture()
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs", FIRST)
    write_run(tmp_path / "runs", SECOND, state="failed")
    return tmp_path


def test_a_page_is_named_after_its_run_and_replaced(site, capsys):
    for _ in range(2):
        assert main(["report", "aaaaaa"]) == 0
        assert capsys.readouterr().out == f"{FIRST}.html\n"
    assert f"<title>{FIRST} finished" in (site / f"{FIRST}.html").read_text()


def test_several_runs_are_one_page_each_once(site, capsys):
    assert main(["report", FIRST, "last", "aaaaaa", "--out", "both.html"]) == 0
    assert "<title>2 runs: 1 finished, 1 failed" in (site / "both.html").read_text()
    assert main(["report", FIRST, "last"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{FIRST}-and-1-more.html"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cccccc"], "Nearest: "),
        (["site=box"], "name at least one run"),
        (["last", "--out", "runs"], "--out runs is a folder. Type: --out runs/"),
        (["last", "--out", "none/a.html"], "there is no folder none. Type: mkdir none"),
        (["a/b"], "is not a name"),
        (["last"] * 201, "one page holds 200 at most"),
    ],
)
def test_a_mistake_is_a_sentence_and_no_file(site, capsys, words, said):
    assert main(["report", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(site.rglob("*.html")) == []
