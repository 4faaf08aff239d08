"""`sweep`, `after` and `begin`: what a run is sent with, and what no spec holds."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from conf import ConfigError, compose, options
from hpc.jobs.spec.config import cluster_config
from hpc.jobs.spec.sending import SENDING_KEYS, check_begin, sending_config, without_sending
from hpc.jobs.spec.sweep import list_as_text, trials

TASK = f"task={options('task')[0]}"
SOON = (datetime.now() + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")


@pytest.mark.parametrize(
    "text",
    [
        "now",
        "now+2hours",
        "now+90",
        "22:30",
        "9:05",
        "23:59:59",
        "tomorrow",
        "noon",
        SOON,
        SOON[:10],
    ],
)
def test_a_time_that_sbatch_takes(text: str) -> None:
    config = compose("train", [TASK, f"begin={text}"])
    assert sending_config(config).begin == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("later", "is no time"),
        ("now+2fortnights", "is no time"),
        ("25:00", "is no time"),
        ("", "is no time"),
        ("now\n#SBATCH --uid=0", "is no time"),
        ("2020-01-01T10:00", "is in the past"),
        ("2999-01-01T10:00+02:00", "local time"),
        ("2999-W01-1", "local time"),
    ],
)
def test_another_time_is_refused_with_what_to_type(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_begin(text)


def test_the_keys_are_of_the_command_and_not_of_the_spec() -> None:
    config = compose("train", [TASK, "sweep=lr", list_as_text("after=a,b"), "begin=now+1hour"])
    sending = sending_config(config)
    assert (sending.sweep, sending.waits_for, sending.begin) == ("lr", ["a", "b"], "now+1hour")
    assert not set(SENDING_KEYS) & set(without_sending({str(key): 1 for key in config}))
    assert sending_config(compose("train", [TASK])).waits_for == []


@pytest.mark.parametrize("name", ["../x", "a b", "all", "-x"])
def test_a_sweep_has_a_name(name: str) -> None:
    with pytest.raises(ConfigError, match="sweep="):
        sending_config({"sweep": name})


def test_at_least_one_trial_runs_at_a_time() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.sweep_parallel=0: must be at least 1"):
        cluster_config(compose("train", [TASK, "cluster.sweep_parallel=0"]))
    assert cluster_config(compose("train", [TASK, "cluster=local"])).sweep_parallel == 1


@pytest.mark.parametrize("text", ["sweep=a,b", "begin=noon,tomorrow"])
def test_what_all_trials_have_in_common_is_no_axis(text: str) -> None:
    with pytest.raises(ConfigError, match="in common"):
        trials([TASK, text])


def test_runs_to_wait_for_are_one_list() -> None:
    assert len(trials([TASK, list_as_text("after=a,b"), "seed=1,2"])) == 2
    with pytest.raises(ConfigError, match="all trials of a sweep wait for the same runs"):
        list_as_text("after='a','b'")
