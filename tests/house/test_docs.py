"""The guides: every command in them is typed by a test, or is in a table that names the test."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from hpc.cli.main import VERBS
from hpc.cli.new import PLACEHOLDER
from tests.house.tree import REPO, TEMPLATES, python_files, string_literals, syntax

GUIDES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FAULT = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
INDENTED = re.compile(r"^    (?=\S)(.+)$", re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
PROGRAMS = "lockgate|fab|scripts/|python|pytest|pip|amtool|awk|curl|haproxy"
COMMAND = re.compile(rf"(?:\.venv/bin/)?(?:{PROGRAMS})")

RUNNERS = {
    "README.md": "tests/site/test_docs.py::test_the_tour_of_the_readme_runs",
    "docs/researcher.md": "tests/site/test_docs.py::test_the_commands_of_a_guide_run",
    "docs/ops.md": "tests/site/test_docs.py::test_the_commands_of_a_guide_run",
    "docs/sre.md": "tests/site/test_docs.py::test_the_commands_of_a_guide_run",
    "docs/extending.md": (
        "tests/site/test_projects.py::test_the_tour_of_the_guide_reads_a_digit_at_both_edges"
    ),
}
"""The test that types the `sh` blocks of a guide, in order, as they are written."""

REPORT = "tests/kernels/compile/test_report.py::"
INCIDENT = "tests/site/test_docs.py::test_the_incident_commands_of_the_sre_guide_run"
OPS = "tests/site/test_docs.py::test_the_commands_of_a_guide_run"
APPROVAL = "tests/serving/release/test_approval.py::test_one_signs_and_another_attaches"
BARE = "tests/serving/fleet/nspawn/test_bare_hosts.py::"
PLACED = "tests/serving/fleet/test_placed_rollouts.py::"
AUTOSCALE = "tests/serving/fleet/test_autoscale_task.py::"
SITE_HOSTS = "tests/serving/fleet/test_site_hosts.py::"
STAGES = "tests/scripts/test_run_tests.py::test_all_stages_run_and_those_of_the_site_are_alone"
RESUME = "tests/hpc/jobs/resume/test_resume.py::test_a_run_goes_on_from_one_that_ended"
TESTED = {
    "lockgate resume RUN": RESUME,
    "lockgate train task=flights cluster.container=": (
        "tests/hpc/jobs/slurm/test_site_container.py::"
        "test_a_rank_works_in_the_container_hears_a_signal_and_comes_back"
    ),
    "scripts/punish train": (
        "tests/site/test_punish.py::"
        "test_a_run_is_bit_equal_although_a_rank_slurmctld_and_mlflow_were_killed"
    ),
    "lockgate train task=flights init_from=RUN@400": (
        "tests/hpc/jobs/run/test_init_from.py::test_a_run_and_its_step_are_frozen_by_path_and_digest"
    ),
    "lockgate export RUN": "tests/hpc/jobs/test_candidate.py::test_limits_are_taken_by_key",
    "lockgate mlflow": (
        "tests/hpc/train/test_tracking.py::test_a_run_that_ended_while_mlflow_was_away_is_fed_later"
    ),
    "lockgate show last": ("tests/hpc/cli/test_show.py::test_show_has_what_a_run_is_and_became"),
    "lockgate compare RUN RUN --by": (
        "tests/hpc/cli/test_show.py::test_compare_by_a_metric_puts_the_best_first"
    ),
    "scripts/site as release lockgate release run=RUN": RUNNERS["docs/extending.md"],
    "lockgate train -m task=flights seed=1,2,3": (
        "tests/hpc/cli/test_verbs.py::test_a_dry_run_shows_script_and_spec_and_writes_nothing"
    ),
    "lockgate train -m sweep=lr": (
        "tests/hpc/jobs/sweep/test_sweeps.py::test_a_sweep_is_one_array_and_its_trials_have_their_place"
        "_in_it"
    ),
    "lockgate train -m sweeper=optuna": (
        "tests/hpc/jobs/sweep/test_search.py::"
        "test_a_search_goes_on_after_ctrl_c_with_what_it_would_have_sent"
    ),
    "lockgate train -m sweeper.stop=median": (
        "tests/hpc/jobs/sweep/test_local_driver.py::"
        "test_a_grid_that_is_watched_ends_its_worst_trial"
    ),
    "lockgate ls --sweep lr": (
        "tests/hpc/jobs/sweep/test_standings.py::"
        "test_trials_come_by_the_held_out_loss_and_the_best_finished_one_is_named"
    ),
    "lockgate report RUN": (
        "tests/hpc/cli/test_report.py::test_several_runs_are_one_page_each_once"
    ),
    "lockgate approve flights/3 --key": APPROVAL,
    "scripts/site as release lockgate approve flights/3 --attach -": APPROVAL,
    "scripts/site as deploy fab status": OPS,
    "scripts/site as deploy fab deploy --model flights": OPS,
    "scripts/site as deploy fab rollback --model flights": OPS,
    "scripts/site as deploy fab revoke": (
        "tests/serving/fleet/test_host_boundaries.py::test_a_revoked_version_is_refused"
    ),
    "scripts/site as deploy fab scale": (
        "tests/serving/fleet/test_scale_task.py::test_the_commands_of_the_guide_do_what_it_says"
    ),
    "fab place": (
        "tests/serving/fleet/test_placement.py::"
        "test_a_model_that_shall_be_alone_gets_hosts_and_the_moves_are_in_order"
    ),
    "fab heal --model big": f"{PLACED}test_a_heal_takes_the_model_out_of_the_hosts_that_it_left",
    "fab edges --roll": (
        "tests/serving/fleet/test_remote_edge.py::test_fab_shows_what_differs_and_rolls_it_out"
    ),
    "fab wheelhouse": f"{BARE}fleet",
    "fab pin": f"{BARE}fleet",
    "fab add": f"{SITE_HOSTS}test_the_projects_site_is_edited_and_the_next_commands_are_named",
    "fab replace": f"{SITE_HOSTS}test_the_projects_site_is_edited_and_the_next_commands_are_named",
    "fab remove": f"{SITE_HOSTS}test_the_projects_site_is_edited_and_the_next_commands_are_named",
    "fab upgrade": f"{BARE}test_an_upgrade_walks_the_fleet_and_no_client_notices",
    "fab bootstrap": f"{BARE}test_a_second_bootstrap_changes_nothing",
    "scripts/site as deploy fab capacity": f"{AUTOSCALE}test_the_view_prints_models_and_hosts",
    "scripts/site as deploy fab autoscale": (
        f"{AUTOSCALE}test_the_task_prints_each_region_and_ends_with_the_code"
    ),
    "scripts/site as observe amtool silence add": INCIDENT,
    'awk \'/"event":"(undoing|rolled-back)"/\' .site/journal/rollouts.jsonl': INCIDENT,
    "python -m kernels.analysis.report": f"{REPORT}test_rows_of_both_libraries",
    "python -m kernels.analysis.bench": f"{REPORT}test_the_bench_says_that_there_is_no_gpu",
    "pytest tests/kernels": STAGES,
}
"""How a command begins that is in another block than `sh`, and the test that runs it."""


def blocks(guide: Path) -> list[tuple[str, str]]:
    """(language and file name, content) of each fenced block."""
    return FENCE.findall(guide.read_text(encoding="utf-8"))


def prose(guide: Path) -> str:
    return FENCE.sub("", guide.read_text(encoding="utf-8"))


def other_commands(guide: Path) -> list[str]:
    """Lines that are commands, in indented blocks and in fenced ones that are not `sh`."""
    lines = [line for label, text in blocks(guide) if label in ("text", "bash", "")
             for line in text.splitlines()]  # fmt: skip
    lines += INDENTED.findall(prose(guide))
    return [line.strip() for line in lines if COMMAND.match(line.strip())]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_every_command_has_a_test_that_runs_it(guide: Path) -> None:
    name = guide.relative_to(REPO).as_posix()
    labels = {label.split(" ")[0] for label, _ in blocks(guide)}
    assert labels <= {"sh", "bash", "text", "yaml", "python", "promql", ""}
    assert "sh" not in labels or name in RUNNERS
    assert [line for line in other_commands(guide) if not line.startswith(tuple(TESTED))] == []


def test_no_test_is_named_for_a_command_that_is_gone() -> None:
    lines = [line for guide in GUIDES for line in other_commands(guide)]
    assert [known for known in TESTED if not any(line.startswith(known) for line in lines)] == []


@pytest.mark.parametrize("test", sorted({*RUNNERS.values(), *TESTED.values()}))
def test_the_test_that_runs_it_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    functions = [
        node.name for node in syntax(REPO / file).body if isinstance(node, ast.FunctionDef)
    ]
    assert name in functions


def test_every_fault_of_the_matrix_is_injected_by_a_test() -> None:
    """The tests that docs/ops.md names are there; a fault beside the other stands in a row."""
    named = FAULT.findall((REPO / "docs/ops.md").read_text(encoding="utf-8"))
    missing = []
    for file, name in named:
        path = REPO / "tests/serving" / file
        found = syntax(path).body if path.exists() else []
        if name not in {node.name for node in found if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{file}::{name}")
    assert missing == []
    assert len(set(named)) >= 25


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_what_prose_names_is_there(guide: Path) -> None:
    """Verbs of lockgate, tasks of fab, scripts, modules, files of the tree and options."""
    missing = [
        found
        for text in INLINE.findall(prose(guide))
        for found in (text, *re.findall(r"--[a-z][a-z-]+", text))
        if not exists(found)
    ]
    assert missing == []


def exists(text: str) -> bool:
    words = re.sub(r"^scripts/site as \w+ ", "", text).split()
    if text.startswith("--"):
        return re.split("[ =]", text)[0] in known_options()
    if words[0] == "lockgate" and len(words) > 1:
        return words[1] in VERBS
    if words[0] == "fab" and len(words) > 1:
        return words[1].replace("-", "_") in fab_tasks() or words[1].startswith("-")
    if words[:2] == ["python", "-m"]:
        return find_spec(words[2]) is not None
    path = re.match(r"(?:conf|hpc|kernels|serving|scripts|docs|tests)/[\w./-]*\w(?=$|[ /:])", text)
    if path is None or "NAME" in path[0]:
        return True
    in_project = path[0].replace("digits", PLACEHOLDER)  # the project that the tour makes
    return (REPO / path[0]).exists() or (TEMPLATES / "module" / in_project).exists()


TASKS = sorted((REPO / "serving/fleet/cli").glob("*_tasks.py"))
"""Modules whose decorated functions are tasks of `fab`."""


@cache
def task_functions() -> tuple[ast.FunctionDef, ...]:
    bodies = (node for path in TASKS for node in syntax(path).body)
    return tuple(node for node in bodies if isinstance(node, ast.FunctionDef))


def fab_tasks() -> set[str]:
    return {node.name for node in task_functions() if node.decorator_list}


@cache
def known_options() -> set[str]:
    """Options of our commands, of pytest's markers and of fab's tasks."""
    literals = {
        literal.value for path in python_files() for literal in string_literals(path)
        if literal.value.startswith("--")
    }  # fmt: skip
    return literals | {
        f"--{argument.arg.rstrip('_')}".replace("_", "-")
        for node in task_functions()
        for argument in node.args.args
    }
