"""Gates as YAML composes them: sets that inherit, one-file plug-ins, mistakes and near names."""

import subprocess
import sys
import textwrap
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from conf import ConfigError, compose, options
from conf.schema import plain_values
from serving.release.baselines import GzipBaseline, ProductionBaseline
from serving.release.gate import may_release, run_gates
from serving.release.settings import make_gates

from . import tiny
from .subjects import bare_subject


def gates_of(site: Path, name: str, *overrides: str) -> dict:
    return dict(tiny.make_settings(site, "r", *overrides, gates=name).gates)


@pytest.mark.parametrize("name", options("gates"))
def test_every_set_of_ours_composes_and_begins_with_what_every_package_must_pass(
    tmp_path: Path, name: str
) -> None:
    found = gates_of(tmp_path, name)
    assert list(found)[:4] == ["contents", "interface", "golden", "latency"]
    assert all(found[gate].required for gate in list(found)[:4])


def test_the_sets_of_flights_and_lm_are_what_they_were(tmp_path: Path) -> None:
    flights, text = gates_of(tmp_path, "flights"), gates_of(tmp_path, "lm")
    judged = {name: (gate.rule, gate.margin) for name, gate in list(flights.items())[4:]}
    assert judged == {
        "base_rate.auc": ("better", 0.05),
        "base_rate.log_loss": ("better", 0.0),
        "logistic_regression.auc": ("not_worse", 0.0),
        "logistic_regression.log_loss": ("not_worse", 0.0),
        "production.auc": ("not_worse", 0.01),
        "production.log_loss": ("not_worse", 0.005),
    }
    draws = {(one.replicates, one.level, one.seed) for one in list(flights.values())[4:]}
    assert draws == {(2000, 0.95, 2013)}
    assert (text["bits.vs_gzip"].required, text["bits.vs_xz"].required) == (True, False)
    assert text["bits.vs_gzip"].baseline == GzipBaseline(level=9)
    assert text["bits.vs_production"].baseline == ProductionBaseline("bits.per_byte")
    assert {text[f"bits.{name}"].chunk_bytes for name in ("vs_gzip", "vs_xz")} == {16384}
    assert text["latency"].high.p99_ms == 8000.0 and text["latency"].high.clients == 8


def test_one_value_is_overridden_and_the_rest_is_inherited(tmp_path: Path) -> None:
    found = gates_of(tmp_path, "flights", "gates.base_rate.auc.margin=0.1")
    assert found["base_rate.auc"].margin == 0.1 and found["base_rate.auc"].rule == "better"
    assert found["contents"].max_bytes == 268435456 and found["contents"].same_runtime
    changed = gates_of(tmp_path, "lm", "gates.bits.per_byte.chunk_bytes=4096")
    assert {changed[f"bits.{one}"].chunk_bytes for one in ("per_byte", "vs_production")} == {4096}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("gates.golden.requird=false", "gates.golden.required"),
        ("+gates.golden.requird=false", "gates.golden.requird is unknown here. Nearest: required"),
        ("ephemeral.start_timeout_s=soon", "ephemeral.start_timeout_s is 'soon'"),
        ("ephemeral.in_flight=0", "ephemeral.in_flight=0"),
        ("ephemeral.limits.memory_mib=0", "ephemeral.limits.memory_mib=0: must be above 0"),
        ("ephemeral.limits.life_s=for ever", "ephemeral.limits.life_s is 'for ever'"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        tiny.make_settings(tmp_path, "r", override)
    assert said in str(error.value)


@pytest.fixture(scope="module")
def flights_node() -> dict[str, Any]:
    """The plain values of conf/gates/flights.yaml, composed once."""
    cfg = compose("release", ["gates=flights", "run=r"])
    node: dict[str, Any] = plain_values(cfg.gates, "gates")
    return node


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("golden.min_examples", "many", "gates.golden.min_examples is 'many', not of type int"),
        ("latency.rounds", 0, "gates.latency.rounds=0"),
        ("latency.low.clients", 9, "high.clients=8: must be at least low.clients"),
        ("base_rate.auc.metric", "aucc", "gates.base_rate.auc.metric=aucc"),
        ("base_rate.auc.metric", "aucc", "Nearest: auc"),
        ("base_rate.auc.rule", "best", "gates.base_rate.auc.rule is 'best', not one of better"),
        (
            "golden._target_",
            "serving.release.gates.golden.GoldenGat",
            "serving.release.gates.golden has no 'GoldenGat'. Nearest: GoldenGate",
        ),
        ("golden._target_", "serving.release.gates.gold.G", "has no 'gold'. Nearest: golden"),
        (
            "base_rate.auc.baseline._target_",
            "serving.release.baselines.ConstantBaselin",
            "gates.base_rate.auc.baseline._target_",
        ),
        ("golden", 3, "gates.golden is 3; a gate is a mapping with _target_"),
        ("golden._target_", "pathlib.PurePath", "gates.golden.required"),
    ],
)
def test_a_wrong_gate_is_named_before_anything_runs(
    flights_node: dict[str, Any], key: str, value: object, said: str
) -> None:
    changed = deepcopy(flights_node)
    *places, last = key.split(".")
    inner = changed
    for place in places:
        inner = inner[place]
    inner[last] = value
    with pytest.raises(ConfigError) as error:
        make_gates(changed)
    assert said in str(error.value)


def test_what_is_no_gate_and_no_gates_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match="is no gate: it has no required, names, run"):
        make_gates({"x": {"_target_": "serving.release.baselines.GzipBaseline"}})
    for nothing in ({}, None):
        with pytest.raises(ConfigError, match="there are none"):
            make_gates(nothing)


ONE_FILE = '''
"""Accuracy per digit, as a project would write it."""

from collections.abc import Iterator
from dataclasses import dataclass

from serving.artifact.manifest import GateRecord
from serving.release.gate import at_least
from serving.release.subject import GateSubject


@dataclass(frozen=True)
class PerDigitAccuracy:
    """Each digit is recognised often enough."""

    required: bool
    minimum: float

    def names(self, name: str, subject: GateSubject) -> tuple[str, ...]:
        return tuple(f"{name}.{digit}" for digit in range(10))

    def run(self, name: str, subject: GateSubject) -> Iterator[GateRecord]:
        target = subject.examples("holdout").target
        chosen = subject.predictions("holdout").argmax(axis=1)
        for digit in range(10):
            rows = target == digit
            right = float((chosen[rows] == digit).mean())
            yield at_least(f"{name}.{digit}", right, self.minimum, f"{int(rows.sum())} rows")
'''


def test_a_gate_of_ones_own_is_one_file_and_one_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from .subjects import predicted_subject

    (tmp_path / "one_digit_project").mkdir()
    (tmp_path / "one_digit_project/gates.py").write_text(ONE_FILE)
    monkeypatch.syspath_prepend(tmp_path)
    target = "one_digit_project.gates.PerDigitAccuracy"
    gates = make_gates({"digits": {"_target_": target, "required": True, "minimum": 0.8}})
    digit = np.arange(1000) % 10
    scores = np.eye(10)[np.where((digit == 3) & (np.arange(1000) < 500), 8, digit)]
    records = list(run_gates(gates, predicted_subject("multiclass", digit, scores)))
    assert [record.name for record in records] == [f"digits.{n}" for n in range(10)]
    assert [record.name for record in records if record.verdict != "pass"] == ["digits.3"]
    assert not may_release(records) and records[3].value == 0.5
    with pytest.raises(ConfigError, match=r"gates\.digits\.minimun is unknown .* minimum"):
        make_gates({"digits": {"_target_": target, "required": True, "minimun": 0.8}})


def test_a_gate_of_ones_own_that_breaks_is_unknown_for_each_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_project.py").write_text(ONE_FILE)
    monkeypatch.syspath_prepend(tmp_path)
    target = "broken_project.PerDigitAccuracy"
    gates = make_gates({"digits": {"_target_": target, "required": True, "minimum": 0.8}})

    def no_dataset() -> Path:
        raise OSError("the disk is gone")

    records = list(run_gates(gates, bare_subject(find_dataset=no_dataset)))
    assert len(records) == 10 and {record.verdict for record in records} == {"unknown"}
    assert records[0].detail == "OSError: the disk is gone"


def test_gates_are_made_without_torch_and_without_scikit_learn(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from conf import compose
        from serving.release.settings import make_gates
        from conf.schema import plain_values
        for name in ("tabular_binary", "text"):
            cfg = compose("release", [f"gates={name}", "run=r"])
            assert make_gates(plain_values(cfg.gates, "gates"))
        print([one for one in ("torch", "deepspeed", "sklearn", "mlflow") if one in sys.modules])
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tiny.REPO, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(tiny.REPO), "PATH": ""}, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
