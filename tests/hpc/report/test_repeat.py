from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from conf import compose, options
from hpc.jobs.spec.resolve import resolve
from hpc.report.repeat import changes, hydra_value, repeat_commands
from hpc.report.reported_run import flat_config, reported_runs
from tests.hpc.report.written_runs import write_run

TASK = options("task")[0]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="$"), max_size=10
)  # fmt: skip


@given(LEAVES | st.lists(LEAVES, max_size=3))
def test_a_value_is_the_same_after_hydra_has_read_it(value):
    override = OverridesParser.create().parse_override(f"key={hydra_value(value)}")
    found = override.value()
    assert _plain(found) == value and type(_plain(found)) is type(value)


def _plain(value):
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.text if hasattr(value, "text") else value


def test_the_difference_of_two_configs_as_overrides():
    known, wanted = {"a": 1, "b": 2, "c.d": 3}, {"a": 1, "b": "x y", "e": None}
    assert changes(known, wanted) == ["~c.d", "b='x y'", "+e=null"]


@pytest.mark.parametrize(
    "overrides",
    [(), ("steps=77", "optim.lr=1e-4"), ("cluster=local", "cluster.tasks_per_node=3"),
     ("+cluster.additional_parameters.constraint=h200",)],
)  # fmt: skip
def test_the_command_composes_to_the_config_of_the_run(tmp_path, monkeypatch, overrides):
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    config = resolve(compose("train", [f"task={TASK}", *overrides]), [])
    run = write_run(tmp_path, "flights-20260101-000001-aaaaaa", config=config)
    (found,) = reported_runs([run])
    program, verb, *words = shlex.split(repeat_commands([found])[found.name])
    assert (program, verb, words[0]) == ("lockgate", "train", f"task={TASK}")
    assert flat_config(resolve(compose("train", words), [])) == found.config
    assert len(words) <= 1 + len(overrides)


def test_a_config_that_no_line_gives_has_no_command(tmp_path):
    run = write_run(tmp_path, "flights-20260101-000001-aaaaaa", config={"a=b c": {"}": 1}})
    assert repeat_commands(reported_runs([run])) == {}
