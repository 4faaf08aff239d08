"""metrics.jsonl, and what rank 0 shows of it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hpc.jobs.spec.settings import flat_settings
from hpc.train import metrics_log
from hpc.train.metrics import served
from kernels import OperatorCalls


def test_a_resumed_run_forgets_what_it_will_do_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in range(1, 6):
        metrics_log.append_metrics(path, {"step": step, "loss": 1 / step})
    with path.open("a") as file:
        file.write('{"step": 6, "lo')  # killed while it wrote
    metrics_log.rewind_metrics(path, 3)
    assert [line["step"] for line in metrics_log.read_metrics(path)] == [1, 2, 3]


def test_a_number_that_json_does_not_know_is_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics_log.append_metrics(path, {"step": 1, "loss": float("nan")})
    assert json.loads(path.read_text())["loss"] is None


def test_metrics_are_served_where_the_target_says_until_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    target = tmp_path / "metrics_target.json"
    with served(target, "lm-1", "lm", "tokens") as metrics:
        metrics.loss.set(2.5)
        metrics.set_operators({"rope": OperatorCalls(triton=3, refused=1)})
        metrics.units.inc(4096)
        metrics.seconds.observe(0.3)
        address = json.loads(target.read_text())["target"]
        with urllib.request.urlopen(f"http://{address}/metrics") as answer:
            families = {f.name: f for f in text_string_to_metric_families(answer.read().decode())}
    assert families["lockgate_train_loss"].samples[0].value == 2.5
    counted = families["lockgate_train_units"].samples[0]
    assert (counted.labels, counted.value) == ({"unit": "tokens"}, 4096)
    served_by = {
        (one.labels["operator"], one.labels["backend"]): one.value
        for one in families["lockgate_train_operator_calls"].samples
    }
    assert served_by == {("rope", "triton"): 3, ("rope", "torch"): 0, ("rope", "refused"): 1}
    assert families["lockgate_train_step_seconds"].type == "histogram"
    assert 0 <= families["lockgate_train_checkpoint_age_seconds"].samples[0].value < 60
    assert not target.exists()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://{address}/metrics", timeout=2)


def test_an_address_that_cannot_be_opened_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "192.0.2.1")  # of nobody, by RFC 5737
    with served(tmp_path / "metrics_target.json", "lm-1", "lm", "tokens") as metrics:
        metrics.loss.set(1.0)
    assert "Training goes on" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_settings_are_named_as_on_the_command_line() -> None:
    assert flat_settings({"optim": {"lr": 0.1, "schedule": {"kind": "wsd"}}, "steps": 3}) == {
        "optim.lr": 0.1,
        "optim.schedule.kind": "wsd",
        "steps": 3,
    }
