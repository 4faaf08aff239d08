"""Each metric against scikit-learn's on drawn data, and functions of one's own."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from conf.errors import ConfigError
from serving.release.bootstrap import Draws, estimate, replicates
from serving.release.metrics import METRICS, FunctionMetric, named_metric, row_log_loss
from serving.release.statistics import GroupedMean, ResampledStatistic

SEEDS = st.integers(0, 2**32 - 1)
ROWS, GROUPS = 60, 6
GROUP = np.arange(ROWS) % GROUPS


def measured(name: str, target: np.ndarray, prediction: np.ndarray) -> float:
    return estimate(METRICS[name].statistic(target, prediction, GROUP), GROUPS)


@settings(deadline=None)  # scikit-learn checks its input slowly on a busy machine
@given(SEEDS)
def test_binary_metrics_agree_with_sklearn(seed: int) -> None:
    random = np.random.default_rng(seed)
    target = random.integers(0, 2, ROWS)
    assume(0 < target.sum() < ROWS)
    chance = np.round(random.random(ROWS), 2)  # with ties
    label = (chance >= 0.5).astype(int)
    assert measured("auc", target, chance) == pytest.approx(
        sklearn_metrics.roc_auc_score(target, chance)
    )
    inside = np.clip(chance, 0.01, 0.99)
    assert measured("log_loss", target, inside) == pytest.approx(
        sklearn_metrics.log_loss(target, inside)
    )
    assert measured("accuracy", target, chance) == pytest.approx(
        sklearn_metrics.accuracy_score(target, label)
    )
    assert measured("f1", target, chance) == pytest.approx(
        sklearn_metrics.f1_score(target, label, zero_division=0)
    )
    two = np.stack([1 - chance, chance], axis=1)
    for name in ("auc", "log_loss"):
        assert measured(name, target, two) == pytest.approx(measured(name, target, chance))


@settings(deadline=None)  # scikit-learn checks its input slowly on a busy machine
@given(SEEDS, st.integers(3, 5))
def test_multiclass_metrics_agree_with_sklearn(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    target = random.integers(0, classes, ROWS)
    assume(len(set(target)) == classes)
    chance = random.dirichlet(np.ones(classes), ROWS)
    label, every = chance.argmax(axis=1), np.arange(classes)
    assert measured("auc", target, chance) == pytest.approx(
        sklearn_metrics.roc_auc_score(target, chance, multi_class="ovr", labels=every)
    )
    inside = (chance + 0.01) / (1 + 0.01 * classes)
    assert measured("log_loss", target, inside) == pytest.approx(
        sklearn_metrics.log_loss(target, inside, labels=every)
    )
    assert measured("accuracy", target, chance) == pytest.approx(
        sklearn_metrics.accuracy_score(target, label)
    )
    assert measured("f1", target, chance) == pytest.approx(
        sklearn_metrics.f1_score(target, label, average="macro")
    )


@settings(deadline=None)  # scikit-learn checks its input slowly on a busy machine
@given(SEEDS)
def test_errors_of_quantities_agree_with_sklearn(seed: int) -> None:
    random = np.random.default_rng(seed)
    target = random.normal(0, 10, ROWS)
    prediction = target + random.normal(0, 3, ROWS)
    assert measured("rmse", target, prediction) == pytest.approx(
        sklearn_metrics.root_mean_squared_error(target, prediction)
    )
    assert measured("mae", target, prediction) == pytest.approx(
        sklearn_metrics.mean_absolute_error(target, prediction)
    )


def test_log_loss_stays_finite_at_the_ends() -> None:
    assert np.isfinite(row_log_loss(np.array([0, 1]), np.array([1.0, 0.0]))).all()
    certain = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert np.isfinite(row_log_loss(np.array([0, 0]), certain)).all()


def test_directions_are_those_of_the_field() -> None:
    better_high = {name for name, metric in METRICS.items() if metric.higher_is_better}
    assert better_high == {"auc", "accuracy", "f1"}
    assert set(METRICS) - better_high == {"log_loss", "rmse", "mae"}


@pytest.mark.parametrize("name", sorted(METRICS))
def test_what_is_not_finite_is_refused(name: str) -> None:
    prediction = np.full(ROWS, 0.5)
    prediction[3] = np.nan
    with pytest.raises(ValueError, match="1 scores are not finite"):
        measured(name, np.arange(ROWS) % 2, prediction)


def test_an_error_needs_one_prediction_per_target() -> None:
    with pytest.raises(ValueError, match="no error against a prediction of"):
        measured("rmse", np.zeros(ROWS), np.zeros((ROWS, 2)))


def test_an_unknown_metric_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"metric=acuracy: .* Nearest: accuracy"):
        named_metric("acuracy")


def pinball(target: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Loss per row of the 0.9 quantile."""
    error = target - prediction
    return np.maximum(0.9 * error, -0.1 * error)


def test_a_function_of_losses_per_row_gets_the_closed_form() -> None:
    metric = FunctionMetric(f"{__name__}.pinball", higher_is_better=False)
    target, prediction = np.arange(ROWS, dtype=float), np.full(ROWS, 20.0)
    found = metric.statistic(target, prediction, GROUP)
    assert isinstance(found, GroupedMean) and metric.title == "pinball"
    assert estimate(found, GROUPS) == pytest.approx(pinball(target, prediction).mean())


def test_a_function_of_everything_is_resampled_in_bounded_draws() -> None:
    metric = FunctionMetric("sklearn.metrics.balanced_accuracy_score", True, "class")
    random = np.random.default_rng(0)
    target = random.integers(0, 2, ROWS)
    chance = np.clip(target * 0.4 + random.random(ROWS) * 0.6, 0, 1)
    found = metric.statistic(target, chance, GROUP)
    assert isinstance(found, ResampledStatistic) and found.most_replicates < 1000
    wanted = sklearn_metrics.balanced_accuracy_score(target, chance >= 0.5)
    assert estimate(found, GROUPS) == pytest.approx(wanted)
    (drawn,) = replicates([found], Draws(GROUPS, 50, 1))
    first = next(Draws(GROUPS, 50, 1).weights())[0][GROUP].astype(int)
    rows = np.repeat(np.arange(ROWS), first)
    again = sklearn_metrics.balanced_accuracy_score(target[rows], chance[rows] >= 0.5)
    assert drawn[0] == pytest.approx(again)


def two_numbers(target: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return np.zeros(2)


def test_a_function_that_is_no_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match="no 'balanced_acuracy_score'"):
        FunctionMetric("sklearn.metrics.balanced_acuracy_score", True)
    metric = FunctionMetric(f"{__name__}.two_numbers", True)
    with pytest.raises(ValueError, match="neither one number nor one per row"):
        metric.statistic(np.zeros(ROWS), np.zeros(ROWS), GROUP)
