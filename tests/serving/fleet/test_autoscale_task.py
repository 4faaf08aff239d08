"""`fab autoscale` and `fab capacity` as typed: lines, exit codes, the loop, the PromQL."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from invoke.exceptions import Exit

from conf.errors import DONE, FAILED, ConfigError
from serving.fleet.capacity.region_decision import RegionDecision
from serving.fleet.cli import autoscale, capacity, capacity_tasks
from serving.fleet.cli.autoscale import (
    RegionScaling,
    autoscale_forever,
    busiest_minute,
    exit_code,
)
from tests.serving.fleet.autoscaled import Site, memory_folder


@pytest.fixture
def site(monkeypatch):
    with memory_folder() as folder:
        yield Site(folder, monkeypatch)


def decided(done: str = "") -> list[RegionScaling]:
    return [RegionScaling(RegionDecision("us-east", 2, 4, 1.0, 2, 0, "right"), done)]


def test_the_loop_goes_on_past_a_mistake_and_ends_at_ctrl_c_with_a_sentence():
    rounds = iter([decided("3 hosts"), ConfigError("target=7"), decided()])
    shown, complaints, waits = [], [], iter([None, None, KeyboardInterrupt()])

    def once():
        if isinstance(found := next(rounds), Exception):
            raise found
        return found

    def wait():
        if error := next(waits):
            raise error

    end = autoscale_forever(once, shown.append, complaints.append, wait)
    assert end == "stopped after 3 rounds and 1 changes; the fleet stays as it is."
    assert complaints == ["target=7"] and len(shown) == 3


def test_a_mistake_in_the_first_round_ends_the_loop():
    def once():
        raise ConfigError("target=7")

    with pytest.raises(ConfigError):
        autoscale_forever(once, print, print, pytest.fail)


def test_a_round_that_decided_ends_well():
    assert exit_code(decided()) == exit_code(decided("3 hosts")) == DONE


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"every": -1}, "type seconds, as in --every 60"),
        ({"traffic": "x"}, "Type: fab autoscale --simulate --traffic x"),
        ({"simulate": True, "plan": True}, "type it without --plan"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, sentence, capsys):
    with pytest.raises(Exit) as ended:
        capacity_tasks.autoscale.body(None, **options)
    assert ended.value.code == 2 and sentence in capsys.readouterr().err


def test_the_task_prints_each_region_and_ends_with_the_code(site, monkeypatch, capsys):
    monkeypatch.setattr(autoscale, "controls", lambda config: site.on)
    site.rates["us-west"] = "it is away"
    with pytest.raises(Exit) as ended:
        capacity_tasks.autoscale.body(None, set=["capacity.policy.most=4"])
    assert ended.value.code == FAILED
    lines = capsys.readouterr().out
    assert "us-east: 4 of 4 hosts bear a load of 2: the number of hosts is right." in lines
    assert "us-west: 2 of 2 hosts; no decision: toy: it is away." in lines


def test_the_view_prints_models_and_hosts(site, monkeypatch, capsys):
    monkeypatch.setattr(capacity, "controls", lambda config: site.on)
    capacity_tasks.capacity.body(None)
    lines = capsys.readouterr().out
    assert "toy in us-east: 4 hosts; capacity unknown: no gate" in lines
    assert "us-west: requests/s of each host unknown: the site has no Prometheus." in lines
    capacity_tasks.capacity.body(None, json=True)
    found = json.loads(capsys.readouterr().out)
    assert [one["region"] for one in found["models"]] == ["us-east", "us-west"]
    assert found["hosts"][0] == {
        "region": "us-east", "per_s": {}, "missing": "the site has no Prometheus",
    }  # fmt: skip


@pytest.mark.parametrize("as_json", [False, True])
def test_the_loop_shows_a_round_that_differs_or_each_in_a_line(site, monkeypatch, capsys, as_json):
    monkeypatch.setattr(autoscale, "controls", lambda config: site.on)
    naps = iter([None, None, KeyboardInterrupt()])

    def nap(seconds: float) -> None:
        assert seconds == 30
        if error := next(naps):
            raise error

    monkeypatch.setattr(capacity_tasks.time, "sleep", nap)
    capacity_tasks.autoscale.body(None, every=30, region="us-east", json=as_json)
    out = capsys.readouterr().out
    if as_json:
        assert [json.loads(line)[0]["decision"]["target"] for line in out.splitlines()] == [4] * 3
        return
    assert out.count("us-east: ") == 1 and "stopped after 3 rounds and 0 changes" in out


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is missing")
def test_a_rise_counts_within_a_minute_and_a_fall_after_the_window(tmp_path):
    """10 requests a second, of two edges together; 30 in the eleventh minute."""
    expression = busiest_minute("toy", "us-east", "5m")
    series = [
        {
            "series": f'lockgate_requests_total{{model="{model}",region="us-east",job="{job}"}}',
            "values": "0+75x40 3225+225x3 3975+75x60",
        }
        for model, job in (("toy", "a"), ("toy", "b"), ("other", "a"))
    ]
    wanted = {"9m": 10, "11m": 30, "15m": 30, "17m": 10}
    tests = [
        {"expr": expression, "eval_time": at, "exp_samples": [{"labels": "{}", "value": value}]}
        for at, value in wanted.items()
    ]
    played = {"interval": "15s", "input_series": series, "promql_expr_test": tests}
    file = tmp_path / "test.yml"
    file.write_text(json.dumps({"rule_files": [], "tests": [played]}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
