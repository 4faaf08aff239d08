"""Laws of the bootstrap over days, and agreement with scikit-learn where both can answer."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from serving.release import bootstrap

SEEDS = st.integers(0, 2**32 - 1)


def some_data(seed: int, rows: int = 80, days: int = 5, ties: bool = True):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, rows)
    scores = random.normal(labels * 0.7, 1.0)
    day = np.concatenate([np.arange(days), random.integers(0, days, rows - days)])
    return labels, np.round(scores, 1) if ties else scores, day


@given(SEEDS)
def test_auc_of_the_data_as_it_is_agrees_with_sklearn(seed: int) -> None:
    labels, scores, day = some_data(seed)
    assume(0 < labels.sum() < len(labels))
    table = bootstrap.daily_auc(labels, scores, day)
    assert table.at(np.ones((1, 5)))[0] == pytest.approx(roc_auc_score(labels, scores))


@given(SEEDS, st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_a_weight_is_a_day_written_that_often(seed: int, counts: list[int]) -> None:
    labels, scores, day = some_data(seed)
    rows = np.concatenate([np.repeat(np.flatnonzero(day == d), n) for d, n in enumerate(counts)])
    assume(len(rows) and 0 < labels[rows].sum() < len(rows))
    weights = np.array([counts], float)
    auc = bootstrap.daily_auc(labels, scores, day).at(weights)[0]
    assert auc == pytest.approx(roc_auc_score(labels[rows], scores[rows]))
    mean = bootstrap.daily_mean(scores, day).at(weights)[0]
    assert mean == pytest.approx(scores[rows].mean())


@given(SEEDS, SEEDS)
def test_the_order_of_rows_does_not_matter(seed: int, shuffle: int) -> None:
    labels, scores, day = some_data(seed)
    order = np.random.default_rng(shuffle).permutation(len(labels))
    one = bootstrap.daily_auc(labels, scores, day)
    two = bootstrap.daily_auc(labels[order], scores[order], day[order])
    assert np.array_equal(one.wins, two.wins)


@given(SEEDS)
def test_auc_sees_only_the_order_of_scores(seed: int) -> None:
    labels, scores, day = some_data(seed)
    one = bootstrap.daily_auc(labels, scores, day)
    assert np.array_equal(one.wins, bootstrap.daily_auc(labels, np.exp(scores), day).wins)
    flipped = bootstrap.daily_auc(labels, -scores, day)
    pairs = np.outer(one.positives, one.negatives)
    assert np.allclose(one.wins + flipped.wins, pairs)


@given(SEEDS)
def test_a_model_differs_from_itself_by_exactly_nothing(seed: int) -> None:
    labels, scores, day = some_data(seed, rows=200)
    assume(all(0 < labels[day == d].sum() < (day == d).sum() for d in range(5)))
    table = bootstrap.daily_auc(labels, scores, day)
    same = bootstrap.difference(table, table, bootstrap.day_weights(5, 200, seed), 0.95)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


@given(SEEDS)
def test_a_difference_is_antisymmetric_and_seeded(seed: int) -> None:
    labels, scores, day = some_data(seed, rows=200)
    loss = bootstrap.daily_mean(bootstrap.log_loss(labels, 1 / (1 + np.exp(-scores))), day)
    base = bootstrap.daily_mean(bootstrap.log_loss(labels, np.full(200, 0.5)), day)
    weights = bootstrap.day_weights(5, 300, seed)
    one = bootstrap.difference(loss, base, weights, 0.9)
    two = bootstrap.difference(base, loss, bootstrap.day_weights(5, 300, seed), 0.9)
    assert np.allclose([one.low, one.high], [-two.high, -two.low])


def test_days_that_agree_give_a_narrow_interval_and_days_that_differ_a_wide_one() -> None:
    day = np.repeat(np.arange(20), 50)
    weights = bootstrap.day_weights(20, 2000, 0)
    same = bootstrap.of(bootstrap.daily_mean(np.tile([0.0, 1.0], 500), day), weights, 0.95)
    differ = bootstrap.of(bootstrap.daily_mean((day % 2).astype(float), day), weights, 0.95)
    assert same.high - same.low < 1e-12
    # 20 days of 0 or 1: the standard error of the mean is 0.5 / sqrt(20) = 0.11
    assert differ.high - differ.low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(20), rel=0.15)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for trial in range(300):
        effect = random.normal(0, 1, 30)  # a shared effect per day, and noise per row
        values = np.repeat(effect, 20) + random.normal(0, 0.5, 600)
        table = bootstrap.daily_mean(values, np.repeat(np.arange(30), 20))
        found = bootstrap.of(table, bootstrap.day_weights(30, 300, trial), 0.9)
        covered += found.low <= 0 <= found.high
    assert 0.82 <= covered / 300 <= 0.95


@given(st.integers(2, 40), SEEDS)
def test_each_draw_has_as_many_days_as_there_are(days: int, seed: int) -> None:
    weights = bootstrap.day_weights(days, 50, seed)
    assert weights.shape == (50, days)
    assert (weights.sum(axis=1) == days).all()


def test_log_loss_agrees_with_sklearn_and_stays_finite_at_the_ends() -> None:
    labels, scores, _ = some_data(3)
    p = 1 / (1 + np.exp(-scores))
    assert bootstrap.log_loss(labels, p).mean() == pytest.approx(sklearn_log_loss(labels, p))
    assert np.isfinite(bootstrap.log_loss(np.array([0, 1]), np.array([1.0, 0.0]))).all()


def test_what_cannot_be_judged_is_said() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap.day_weights(1, 10, 0)
    with pytest.raises(ValueError, match="1 scores are not finite"):
        bootstrap.daily_auc(np.array([0, 1]), np.array([0.1, np.nan]), np.array([0, 1]))
    labels, day = np.array([0, 0, 1]), np.array([0, 1, 2])  # a draw without day 2 has no positive
    table = bootstrap.daily_auc(labels, np.array([0.1, 0.2, 0.3]), day)
    with pytest.raises(ValueError, match="had one class"):
        bootstrap.of(table, bootstrap.day_weights(3, 100, 0), 0.95)


def test_dates_are_numbered_in_order() -> None:
    days = np.array(["2013-03-02", "2013-03-01", "2013-03-02"], "datetime64[D]")
    assert bootstrap.number_days(days).tolist() == [1, 0, 1]
