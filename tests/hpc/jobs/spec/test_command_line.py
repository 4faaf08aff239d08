"""The command line of a spec gives the spec's config again, whatever was typed the first time."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from conf import ConfigError, compose, options
from hpc.jobs.spec.command_line import hydra_value, train_words
from hpc.jobs.spec.job_spec import JobSpec
from hpc.jobs.spec.resolve import resolve
from tests.hpc.jobs.spec.test_job_spec import spec_of

TASK = f"task={options('task')[0]}"


def spec_from(words: list[str], passed: tuple[str, ...] = ()) -> JobSpec:
    config = compose("train", words)
    return spec_of(resolve(config, passed), task=str(config.task.name))


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ([], []),
        (["seed=3", "steps=40"], ["seed=3", "steps=40"]),
        (["cluster=local", "cluster.tasks_per_node=3"], None),
        (["optim=muon", "gradient_clipping=0"], ["optim=muon", "gradient_clipping=0"]),
        (["optim.betas=[0.8,0.9]", "optim.eps=1e-12"], None),
        (["~optim.schedule.final"], None),
        (["+cluster.additional_parameters.constraint=h200"], None),
        (["cluster.exclude='n1,n2'", "cluster.account='true'", "cluster.qos='1'"], None),
    ],
)
def test_what_was_typed_comes_back(typed, found):
    assert set(train_words(spec_from([TASK, *typed]))) == {
        TASK,
        *(typed if found is None else found),
    }


def test_the_command_composes_the_same_config_elsewhere(monkeypatch):
    spec = spec_from([TASK, "seed=9", "cluster=local"])
    monkeypatch.setenv("LOCKGATE_SITE", "/elsewhere")  # the site is where it ran, no setting
    words = train_words(spec)
    assert set(words) == {TASK, "seed=9", "cluster=local"}


def test_a_secret_stays_a_reference(monkeypatch):
    monkeypatch.setenv("HUB_TOKEN", "hunter2hunter2")
    words = [TASK, "+task.hub_token=${oc.env:HUB_TOKEN}", "cluster.pass_environment=[HUB_TOKEN]"]
    spec = spec_from(words, ("HUB_TOKEN",))
    monkeypatch.delenv("HUB_TOKEN")  # who looks at a run has another's secrets rarely
    found = train_words(spec)
    assert "+task.hub_token='${oc.env:HUB_TOKEN}'" in found
    assert "hunter2" not in " ".join(found)


def test_a_config_that_todays_tree_cannot_give_has_no_command():
    with pytest.raises(ConfigError, match=f"no task here is called gone. .*{options('task')[0]}"):
        train_words(spec_of({"steps": 3}, task="gone"))


@pytest.mark.parametrize(
    "odd",
    [{"cluster": None}, {"a b": 1}, {"+seed": 1}, {"seed=3 steps": 4}, {"": 1}, {"site": 7}],
    ids=str,
)
def test_a_config_that_nobody_could_type_has_no_command(odd):
    config = dict(spec_from([TASK]).content()["config"])
    with pytest.raises(ConfigError):
        train_words(spec_of(config | odd, task=TASK.removeprefix("task=")))


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
        | st.text(st.characters(codec="ascii", exclude_characters="$"), max_size=8),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=6,
    )
)  # fmt: skip
@example("it's")
@example("ends in \\")
@example("\\' both")
@example("null")
@example("1e5")
@example("a,b=[c]{d}")
def test_hydra_reads_a_value_as_it_was(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(f"+key={hydra_value(value)}")
    assert OmegaConf.to_container(OmegaConf.create({"key": override.value()})) == {"key": value}
