"""The page of runs: what it says, that nothing of a run is markup, its size."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.jobs.run.files import RankFailure, write_run_file
from hpc.jobs.run.operators import OperatorCount, OperatorsFile
from hpc.report.logged_metrics import LoggedMetrics
from hpc.report.notes import ReportNotes
from hpc.report.page import LIMIT_BYTES, report_page
from hpc.report.reported_run import reported_runs
from hpc.report.sentences import title_sentence
from tests.hpc.report.written_runs import CONFIG, metric_lines, write_run

NAME = "flights-20260101-00000{}-aaaaaa"
HOSTILE = "<img src=x onerror=alert(1)>\"'</title></style><script>alert(1)</script>\x1b[2J&lt;"


class Elements(HTMLParser):
    """The tags of a page, its attributes' names, and all of its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return reported_runs([
        write_run(folder, NAME.format(number),
                  {"seed": number, "optim": CONFIG["optim"] | {"lr": 10.0**-number}},
                  metric_lines(scale=1 + abs(number - 3)))
        for number in range(1, 5)
    ])  # fmt: skip


def page(runs, **notes) -> str:
    return report_page(runs, ReportNotes(**notes), 1_795_800_000.0)


def test_one_run_says_how_it_ended_and_how_it_is_repeated(tmp_path):
    runs = reported_runs([write_run(tmp_path, NAME.format(1), resumed=(100, 240))])
    line = "lockgate train task=flights optim.lr=0.0003"
    text = page(runs, commands={runs[0].name: line}, memory_bytes={runs[0].name: 9 << 29})
    found = Elements(text)
    for words in (
        f"{runs[0].name} finished 400 steps in", "resumed after step 100, 240", line,
        "asked 64 GB of each node, used at most 9", "requeued", "flights@bbbbbbbbbbbbbbbb",
        "data 200 ms, 10%", "other 300 ms, 15%", "optim.lr",
    ):  # fmt: skip
        assert words in found.text
    assert text.count('class="requeue"') >= 2 * text.count("<figure>") - 2
    assert "script" not in found.tags and "script-src" not in text
    assert "/secret/place" not in text  # the site is no setting of the run


def test_the_operators_of_a_run_are_a_table_and_those_of_none_are_not(tmp_path):
    run = write_run(tmp_path, NAME.format(1))
    assert "Operators" not in page(reported_runs([run]))
    run.operators.mkdir()
    counts = {HOSTILE: OperatorCount(reference=1200, reason=f"no GPU {HOSTILE}")}
    write_run_file(run.operators / "0.json", OperatorsFile(0, 10, counts))
    text = page(reported_runs([run]))
    found = Elements(text)
    assert "Operators" in found.text and "1,200" in found.text and "no GPU <img" in found.text
    assert not {"img", "script"} & set(found.tags)


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("finished", None, "finished 400 steps in 16 min 45 s, the last loss"),
        ("failed", RankFailure("Diverged", "loss is nan\nmore", 1),
         "failed at step 400 of 400: Diverged: loss is nan (rank 1)"),
        ("stopped", None, "was stopped at step 400 of 400"),
    ],
)  # fmt: skip
def test_the_title_says_how_it_ended(tmp_path, state, error, words):
    runs = reported_runs([write_run(tmp_path, NAME.format(1), state=state, error=error)])
    assert f"{NAME.format(1)} {words}" in title_sentence(runs)


def test_several_runs_are_ranked_and_sorted_by_one_script_of_ours(several):
    text = page(several)
    found = Elements(text)
    assert title_sentence(several).startswith("4 runs: 4 finished; the best validation_log_loss is")
    assert title_sentence(several).endswith(NAME.format(3))
    rows = re.findall(r'<tr(?: class="best")?><td><i class="run\d"></i>([^<]+)', text)
    assert rows[0] == NAME.format(3) and sorted(rows) == [run.name for run in several]
    assert found.tags.count("script") == 1 and "script-src 'sha256-" in text
    heads = re.findall(r"<th[^>]*>([^<]+)", text)
    assert heads == ["run", "state", "steps", "validation_log_loss", "loss", "optim.lr", "seed"]
    assert text.count("<polyline") > 4 * 5


def test_a_metric_of_which_more_is_better_ranks_upwards(several):
    only = [
        replace(run, metrics=LoggedMetrics(
            {"validation_auc": run.metrics.curves["validation_auc"]}, ()))
        for run in several
    ]  # fmt: skip
    assert title_sentence(only).endswith(f"{NAME.format(3)}")
    assert "more is better" in page(only)


TEXTS = st.text(max_size=30) | st.just(HOSTILE)
VALUES = st.none() | st.floats(-1e299, 1e299)
POINTS = st.lists(st.tuples(st.floats(0, 1e15), VALUES), min_size=1, max_size=6)
TAGS = re.compile(
    "html|head|meta|title|style|body|h1|h2|p|div|section|table|thead|tbody|tr|th|td|i|b|span|svg|g|"
    "line|text|polyline|polygon|circle|rect|figure|figcaption|dl|dt|dd|ul|li|pre|details|summary|script"
)


@settings(max_examples=40, deadline=None)
@given(TEXTS, TEXTS, TEXTS, POINTS)
def test_nothing_of_a_run_is_markup(several, name, key, value, points):
    strange = [
        replace(
            run,
            state=replace(run.state, run=f"{name}{place}", detail=value, task=name, job_id=value),
            config={**run.config, key: f"{value}{place}"},
            metrics=LoggedMetrics(
                {**run.metrics.curves, key: tuple(sorted(points, key=lambda one: one[0]))},
                run.metrics.lines,
            ),
        )
        for place, run in enumerate(several)
    ]
    notes = {"commands": {run.name: value for run in strange}}
    for runs in (strange, strange[:1]):
        text = page(runs, **notes)
        found = Elements(text)
        assert all(map(TAGS.fullmatch, found.tags))
        assert found.tags.count("script") == (len(runs) > 1)
        assert not any(attribute.startswith("on") for attribute in found.attributes)
        assert "\x1b" not in text and not re.search(r'="[^"]*\b(nan|inf)\b[^"]*"[^>]*/>', text)
        text.encode()


def test_100_000_steps_of_ten_metrics_are_a_small_page(tmp_path):
    run = reported_runs([write_run(tmp_path, NAME.format(1))])[0]
    curve = tuple((float(step), 1.0 + step * 7919 % 1000 / 1000) for step in range(100_000))
    long = replace(run, metrics=LoggedMetrics({f"metric{n}": curve for n in range(10)}, ()))
    text = page([long])
    assert 50_000 < len(text.encode()) < 300_000


def test_200_runs_with_hostile_names_stay_below_the_limit(several):
    curve = tuple((float(step), 1.0 + step * 7919 % 1000 / 1000) for step in range(200))
    keys = ["'" * 30 + str(number) for number in range(20)]
    runs = [
        replace(
            several[0],
            state=replace(several[0].state, run="'" * 90 + str(place), detail="'" * 500),
            config={key: "'" * 99 + str(place) for key in keys},
            metrics=LoggedMetrics({f"validation_{'&' * 50}{n}": curve for n in range(40)},
                                  several[0].metrics.lines),
        )
        for place in range(200)
    ]  # fmt: skip
    assert len(page(runs).encode()) < LIMIT_BYTES


def test_a_folder_with_nothing_but_a_broken_spec_is_a_page(tmp_path):
    run = write_run(tmp_path, NAME.format(1), lines=[], state="running")
    for path in (run.job, run.status, run.metrics):
        path.unlink()
    run.spec_path.chmod(0o644)
    run.spec_path.write_text("{")
    text = page(reported_runs([run]))
    assert "nothing was logged yet" in text and "the folder holds no times yet" in text
    assert "is not a spec" in text
