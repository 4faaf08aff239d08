"""The quality gate on predictions we make ourselves: what passes, what fails, by which side."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.artifact.manifest import GateRecord
from serving.release.baselines import (
    ConstantBaseline,
    FileBaseline,
    LinearRegressionBaseline,
    LogisticRegressionBaseline,
    ProductionBaseline,
)
from serving.release.gate import run_gate
from serving.release.gates.quality import QualityGate
from serving.release.metrics import FunctionMetric
from serving.release.statistics import grouped_auc, number_groups

from .subjects import predicted_subject

REPLICATES = 500


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of 40 days, the true chance of each row, and its day."""
    random = np.random.default_rng(0)
    day = np.repeat(np.arange(40), 100)
    chance = 1 / (1 + np.exp(-random.normal(np.repeat(random.normal(0, 0.5, 40), 100), 1.0)))
    return (random.random(4000) < chance).astype(np.int64), chance, day


def gate(metric: str, baseline: Any = None, **changes: Any) -> QualityGate:
    content = {"required": True, "replicates": REPLICATES, "seed": 7, **changes}
    return QualityGate(metric=metric, baseline=baseline, **content)


def verdicts(world, one: QualityGate, model: np.ndarray, **more: Any) -> list[str]:
    target, _, day = world
    subject = predicted_subject("binary", target, model, group=day, **more)
    return [record.verdict for record in run_gate("g", one, subject)]


def both(world, model: np.ndarray, other: np.ndarray | None = None, **changes: Any) -> list[str]:
    """The verdicts of AUC and log loss, against the base rate or against `other` in production."""
    base = ConstantBaseline() if other is None else ProductionBaseline()
    auc, loss = changes.pop("auc", 0.0), changes.pop("loss", 0.0)
    found = []
    for metric, margin in (("auc", auc), ("log_loss", loss)):
        one = gate(metric, base, margin=margin, **changes)
        found += verdicts(world, one, model, production=other)
    return found


def test_the_truth_is_clearly_better_than_the_base_rate_and_noise_is_not(world) -> None:
    target, chance, day = world
    settings = {"rule": "better", "auc": 0.05}
    assert both(world, chance, **settings) == ["pass", "pass"]
    noise = np.random.default_rng(1).random(4000)
    assert both(world, noise, **settings) == ["fail", "fail"]
    constant = np.full(4000, target.mean())
    subject = predicted_subject("binary", target, constant, group=day)
    one = gate("auc", ConstantBaseline(), rule="better", margin=0.05)
    (record,) = run_gate("base_rate.auc", one, subject)
    assert record.name == "base_rate.auc"
    assert record.verdict == "fail" and record.value == pytest.approx(0)


def test_not_worse_means_that_the_interval_reaches_it(world) -> None:
    _, chance, _ = world
    shaky = np.clip(chance + np.random.default_rng(2).normal(0, 0.3, 4000), 0.01, 0.99)
    assert both(world, chance, chance) == both(world, chance, shaky) == ["pass", "pass"]
    assert both(world, shaky, chance) == ["fail", "fail"]
    assert both(world, shaky, chance, auc=0.5, loss=0.5) == ["pass", "pass"]


def test_a_model_that_only_scales_its_chances_fails_log_loss_alone(world) -> None:
    _, chance, _ = world
    timid = 0.5 + (chance - 0.5) * 0.1
    assert both(world, timid, chance) == ["pass", "fail"]


def test_the_interval_is_that_of_a_bootstrap_over_days_with_the_gates_seed(world) -> None:
    target, chance, day = world
    subject = predicted_subject("binary", target, chance, group=day)
    one = gate("auc", ConstantBaseline(), rule="better", replicates=2000, seed=2013)
    (record,) = run_gate("g", one, subject)
    weights = np.random.default_rng(2013).multinomial(40, np.full(40, 1 / 40), size=2000)
    drawn = grouped_auc(target, chance, number_groups(day, 4000)).at(weights.astype(float))
    assert record.value == pytest.approx(np.quantile(drawn, 0.025) - 0.5, abs=1e-9)


# rows: how the model compares; columns: metric's direction. The margin is in the metric's unit.
@pytest.mark.parametrize("metric", ["accuracy", "mae"])
@pytest.mark.parametrize(
    ("model_is", "rule", "margin", "verdict"),
    [
        ("better", "better", 0.0, "pass"),
        ("better", "better", 0.1, "pass"),
        ("better", "better", 0.9, "fail"),
        ("better", "not_worse", 0.0, "pass"),
        ("equal", "better", 0.0, "pass"),  # by nothing, where nothing is asked
        ("equal", "better", 0.01, "fail"),
        ("equal", "not_worse", 0.0, "pass"),
        ("worse", "better", 0.0, "fail"),
        ("worse", "not_worse", 0.0, "fail"),
        ("worse", "not_worse", 0.1, "fail"),
        ("worse", "not_worse", 0.9, "pass"),
    ],
)
def test_margins_have_the_direction_of_the_metric(
    metric: str, model_is: str, rule: str, margin: float, verdict: str
) -> None:
    random = np.random.default_rng(3)
    target, group = random.integers(0, 2, 2000), np.repeat(np.arange(20), 100)
    good = np.where(random.random(2000) < 0.9, target, 1 - target).astype(float)
    poor = np.where(random.random(2000) < 0.6, target, 1 - target).astype(float)
    model, other = {"better": (good, poor), "equal": (good, good), "worse": (poor, good)}[model_is]
    kind = "binary" if metric == "accuracy" else "regression"
    subject = predicted_subject(kind, target.astype(float), model, group=group, production=other)
    one = gate(metric, ProductionBaseline(), rule=rule, margin=margin)
    (record,) = run_gate("g", one, subject)
    assert record.verdict == verdict, record.detail


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ({"minimum": 0.85}, {"g.minimum": "pass"}),
        ({"minimum": 0.95}, {"g.minimum": "fail"}),
        ({"maximum": 0.95}, {"g.maximum": "pass"}),
        ({"minimum": 0.5, "maximum": 0.6}, {"g.minimum": "pass", "g.maximum": "fail"}),
    ],
)
def test_thresholds_hold_without_a_baseline(bounds: dict, found: dict[str, str]) -> None:
    target = np.arange(1000) % 2
    model = np.where(np.arange(1000) % 10 == 0, 1 - target, target).astype(float)  # 0.9 right
    subject = predicted_subject("binary", target, model)
    records = run_gate("g", gate("accuracy", **bounds), subject)
    assert {record.name: record.verdict for record in records} == found
    assert {record.value for record in records} == {0.9}


def test_each_value_of_a_slice_with_rows_enough_has_a_record_of_its_own() -> None:
    target, carrier = np.arange(1200) % 2, np.repeat([b"AA", b"UA", b"ZZ"], [600, 500, 100])
    model = np.where(carrier == b"UA", 1 - target, target).astype(float)
    columns = {"carrier": carrier.astype(object), "weekday": np.arange(1200) % 2}
    subject = predicted_subject("binary", target, model, columns=columns)
    one = gate("accuracy", minimum=0.5, slices=("carrier",), slice_rows=200)
    records = {record.name: record for record in run_gate("g", one, subject)}
    assert {name: record.verdict for name, record in records.items()} == {
        "g.minimum": "pass",
        "g.carrier": "fail",
        "g.carrier=AA.minimum": "pass",
        "g.carrier=UA.minimum": "fail",
    }
    assert (
        "2 values with at least 200 rows; not passed: g.carrier=UA" in records["g.carrier"].detail
    )
    assert [name for name, record in records.items() if record.required] == ["g.minimum"]
    strict = gate("accuracy", minimum=0.5, slices=("carrier",), slice_rows=200, slice_required=True)
    assert all(record.required for record in run_gate("g", strict, subject))


def test_a_slice_is_held_against_the_baselines_same_rows() -> None:
    random = np.random.default_rng(5)
    target, group = random.integers(0, 2, 2000), np.repeat(np.arange(40), 50)
    where = np.repeat(["north", "south"], 1000)
    good = np.where(random.random(2000) < 0.9, target, 1 - target).astype(float)
    poor = np.where(random.random(2000) < 0.5, target, 1 - target).astype(float)
    model = np.where(where == "north", good, poor)
    subject = predicted_subject(
        "binary", target, model, group=group, columns={"where": where}, production=good
    )
    one = gate("accuracy", ProductionBaseline(), slices=("where",), margin=0.3)
    found = {record.name: record.verdict for record in run_gate("g", one, subject)}
    assert found == {
        "g": "pass",
        "g.where": "fail",
        "g.where=north": "pass",
        "g.where=south": "fail",
    }


def test_a_slice_of_one_class_is_unknown_and_a_wrong_column_is_said() -> None:
    target = np.repeat([0, 1], 500)
    columns = {"half": np.repeat([1, 2], 500)}
    subject = predicted_subject("binary", target, target.astype(float), columns=columns)
    one = gate("auc", ConstantBaseline(), rule="better", slices=("half",))
    found = {record.name: record for record in run_gate("g", one, subject)}
    assert found["g"].verdict == "pass" and found["g.half=1"].verdict == "unknown"
    wrong = gate("auc", ConstantBaseline(), slices=("carrier",))
    (whole, column) = run_gate("g", wrong, subject)
    assert whole.verdict == "pass" and column.verdict == "unknown"
    assert "the dataset has no column carrier; it has half" in column.detail


def test_without_production_its_gate_is_not_there_and_with_it_it_is(world) -> None:
    _, chance, _ = world
    one = gate("auc", ProductionBaseline())
    assert verdicts(world, one, chance) == []
    assert verdicts(world, one, chance, production=chance) == ["pass"]


def test_the_constant_is_fitted_on_the_training_split() -> None:
    train = np.array([0, 0, 0, 1])
    target = np.tile([0, 1], 50)
    subject = predicted_subject("binary", target, target.astype(float), train_target=train)
    assert set(ConstantBaseline().predictions(subject, "holdout", None)) == {0.25}
    classes = predicted_subject("multiclass", target, target.astype(float), train_target=train)
    found = ConstantBaseline().predictions(classes, "holdout", None)
    assert found.shape == (100, 2) and found[0].tolist() == [0.75, 0.25]
    skewed = np.array([1.0, 1.0, 10.0])
    subject = predicted_subject("regression", target * 1.0, target * 1.0, train_target=skewed)
    assert ConstantBaseline().predictions(subject, "holdout", None)[0] == 4.0
    assert ConstantBaseline(of="median").predictions(subject, "holdout", None)[0] == 1.0


@pytest.fixture
def arrays_folder(tmp_path: Path) -> Path:
    (tmp_path / "transform.json").write_text('{"kind": "arrays"}')
    return tmp_path


def test_regressions_learn_what_is_linear(arrays_folder: Path) -> None:
    random = np.random.default_rng(8)
    x = random.normal(0, 1, (600, 2, 2))
    quantity = x.sum(axis=(1, 2)) * 3 + 5
    found = {"find_dataset": lambda: arrays_folder, "columns": {"x": x}}
    subject = predicted_subject("regression", quantity, quantity, **found)
    line = LinearRegressionBaseline().predictions(subject, "holdout", None)
    assert np.allclose(line, quantity, atol=1e-4)
    with pytest.raises(ValueError, match="the target is a quantity"):
        LogisticRegressionBaseline().predictions(subject, "holdout", None)
    label = np.digitize(quantity, [2, 8])
    subject = predicted_subject("multiclass", label, label * 1.0, **found)
    chances = LogisticRegressionBaseline().predictions(subject, "holdout", None)
    assert chances.shape == (600, 3) and (chances.argmax(axis=1) == label).mean() > 0.9
    with pytest.raises(ValueError, match="the target is classes"):
        LinearRegressionBaseline().predictions(subject, "holdout", None)


def test_words_are_a_baseline_for_texts(tmp_path: Path) -> None:
    (tmp_path / "transform.json").write_text('{"kind": "labelled-text"}')
    label = np.arange(200) % 2
    texts = np.array([[b"a fine day", b"the worst of days"][one] for one in label], dtype=object)
    subject = predicted_subject(
        "multiclass", label, label * 1.0, columns={"text": texts}, find_dataset=lambda: tmp_path
    )
    chances = LogisticRegressionBaseline().predictions(subject, "holdout", None)
    assert (chances.argmax(axis=1) == label).all()


def test_a_file_of_predictions_is_a_baseline(tmp_path: Path) -> None:
    target = np.arange(100) % 2

    def measured(base: FileBaseline, rule: str = "not_worse") -> GateRecord:
        subject = predicted_subject("binary", target, target.astype(float))
        (record,) = run_gate("g", gate("log_loss", base, rule=rule), subject)
        return record

    np.save(tmp_path / "p.npy", np.full(100, 0.5))
    pq.write_table(pa.table({"id": range(100), "p": np.full(100, 0.5)}), tmp_path / "p.parquet")
    (tmp_path / "p.csv").write_text("p\n" + "0.5\n" * 100)
    for name, columns in (("p.npy", ()), ("p.parquet", ("p",)), ("p.csv", ())):
        record = measured(FileBaseline(tmp_path / name, columns), "better")
        assert record.verdict == "pass", record.detail
    np.save(tmp_path / "p.npy", np.full(99, 0.5))
    record = measured(FileBaseline(tmp_path / "p.npy"))
    assert record.verdict == "unknown" and "99 rows; the split holdout has 100" in record.detail
    np.save(tmp_path / "p.npy", np.array([{"a": 1}] * 100, dtype=object))
    record = measured(FileBaseline(tmp_path / "p.npy"))
    assert record.verdict == "unknown"  # objects would be unpickled
    record = measured(FileBaseline(tmp_path / "p.pkl"))
    assert record.verdict == "unknown" and "are read from .npy, .parquet, .csv" in record.detail


def shifted(target: np.ndarray, prediction: np.ndarray) -> float:
    return float(abs((target - prediction).mean()))


def test_a_metric_of_ones_own_is_compared_as_any_other(world) -> None:
    target, chance, day = world
    metric = FunctionMetric(f"{__name__}.shifted", higher_is_better=False)
    subject = predicted_subject("binary", target, chance, group=day, production=chance + 0.5)
    one = gate(metric, ProductionBaseline(), rule="better", margin=0.1)  # type: ignore[arg-type]
    (record,) = run_gate("g", one, subject)
    assert record.verdict == "pass" and record.detail.startswith("shifted 0.0")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metric": "aucc", "minimum": 0.5}, "Nearest: auc"),
        ({"metric": "auc"}, "baseline: give a baseline"),
        ({"metric": "auc", "minimum": 0.5, "margin": -0.1}, "margin=-0.1"),
        ({"metric": "auc", "minimum": 0.5, "level": 95.0}, "level=95.0"),
        ({"metric": "auc", "minimum": 0.5, "replicates": 10}, "replicates=10"),
        ({"metric": "auc", "minimum": 0.5, "slice_rows": 0}, "slice_rows=0"),
    ],
)
def test_settings_that_measure_nothing_are_refused(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        QualityGate(required=True, **change)
