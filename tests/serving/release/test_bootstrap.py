"""Laws of the bootstrap over groups, and agreement with rows that are written out."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from serving.release import bootstrap, statistics
from serving.release.bootstrap import (
    Draws,
    Interval,
    difference_interval,
    estimate,
    interval,
    replicates,
)
from serving.release.metrics import METRICS, row_log_loss
from serving.release.statistics import grouped_auc, grouped_mean, number_groups

SEEDS = st.integers(0, 2**32 - 1)


def statistic_interval(statistic, draws: Draws, level: float) -> Interval:
    """The interval of one statistic alone."""
    (drawn,) = replicates([statistic], draws)
    return interval(estimate(statistic, draws.groups), drawn, level)


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
    table = grouped_auc(labels, scores, day)
    assert table.at(np.ones((1, 5)))[0] == pytest.approx(roc_auc_score(labels, scores))


@given(SEEDS, st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_a_weight_is_a_day_written_that_often(seed: int, counts: list[int]) -> None:
    labels, scores, day = some_data(seed)
    rows = np.concatenate([np.repeat(np.flatnonzero(day == d), n) for d, n in enumerate(counts)])
    assume(len(rows) and 0 < labels[rows].sum() < len(rows))
    weights = np.array([counts], float)
    auc = grouped_auc(labels, scores, day).at(weights)[0]
    assert auc == pytest.approx(roc_auc_score(labels[rows], scores[rows]))
    mean = grouped_mean(scores, day).at(weights)[0]
    assert mean == pytest.approx(scores[rows].mean())


@given(SEEDS, SEEDS)
def test_the_order_of_rows_does_not_matter(seed: int, shuffle: int) -> None:
    labels, scores, day = some_data(seed)
    order = np.random.default_rng(shuffle).permutation(len(labels))
    one = grouped_auc(labels, scores, day)
    two = grouped_auc(labels[order], scores[order], day[order])
    assert np.array_equal(one.wins, two.wins)


@given(SEEDS)
def test_auc_sees_only_the_order_of_scores(seed: int) -> None:
    labels, scores, day = some_data(seed)
    one = grouped_auc(labels, scores, day)
    assert np.array_equal(one.wins, grouped_auc(labels, np.exp(scores), day).wins)
    flipped = grouped_auc(labels, -scores, day)
    pairs = np.outer(one.positives, one.negatives)
    assert np.allclose(one.wins + flipped.wins, pairs)


@given(SEEDS)
def test_a_model_differs_from_itself_by_exactly_nothing(seed: int) -> None:
    labels, scores, day = some_data(seed, rows=200)
    assume(all(0 < labels[day == d].sum() < (day == d).sum() for d in range(5)))
    table = grouped_auc(labels, scores, day)
    same = difference_interval(table, table, Draws(5, 200, seed), 0.95)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


@given(SEEDS)
def test_a_difference_is_antisymmetric_and_seeded(seed: int) -> None:
    labels, scores, day = some_data(seed, rows=200)
    loss = grouped_mean(row_log_loss(labels, 1 / (1 + np.exp(-scores))), day)
    base = grouped_mean(row_log_loss(labels, np.full(200, 0.5)), day)
    draws = Draws(5, 300, seed)
    one = difference_interval(loss, base, draws, 0.9)
    two = difference_interval(base, loss, Draws(5, 300, seed), 0.9)
    assert np.allclose([one.low, one.high], [-two.high, -two.low])


def test_days_that_agree_give_a_narrow_interval_and_days_that_differ_a_wide_one() -> None:
    day = np.repeat(np.arange(20), 50)
    draws = Draws(20, 2000, 0)
    same = statistic_interval(grouped_mean(np.tile([0.0, 1.0], 500), day), draws, 0.95)
    differ = statistic_interval(grouped_mean((day % 2).astype(float), day), draws, 0.95)
    assert same.high - same.low < 1e-12
    # 20 days of 0 or 1: the standard error of the mean is 0.5 / sqrt(20) = 0.11
    assert differ.high - differ.low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(20), rel=0.15)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for trial in range(300):
        effect = random.normal(0, 1, 30)  # a shared effect per day, and noise per row
        values = np.repeat(effect, 20) + random.normal(0, 0.5, 600)
        table = grouped_mean(values, np.repeat(np.arange(30), 20))
        found = statistic_interval(table, Draws(30, 300, trial), 0.9)
        covered += found.low <= 0 <= found.high
    assert 0.82 <= covered / 300 <= 0.95


@given(st.integers(2, 40), SEEDS)
def test_each_draw_has_as_many_days_as_there_are(days: int, seed: int) -> None:
    weights = np.concatenate(list(Draws(days, 50, seed).weights()))
    assert weights.shape == (50, days)
    assert (weights.sum(axis=1) == days).all()


def test_what_cannot_be_judged_is_said() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Draws(1, 10, 0)
    with pytest.raises(ValueError, match="1 scores are not finite"):
        grouped_auc(np.array([0, 1]), np.array([0.1, np.nan]), np.array([0, 1]))
    labels, day = np.array([0, 0, 1]), np.array([0, 1, 2])  # a draw without day 2 has no positive
    table = grouped_auc(labels, np.array([0.1, 0.2, 0.3]), day)
    with pytest.raises(ValueError, match="had one class"):
        statistic_interval(table, Draws(3, 100, 0), 0.95)


def test_dates_are_numbered_in_order() -> None:
    days = np.array(["2013-03-02", "2013-03-01", "2013-03-02"], "datetime64[D]")
    assert number_groups(days, 3).tolist() == [1, 0, 1]


def test_without_groups_every_row_is_its_own() -> None:
    assert number_groups(None, 4).tolist() == [0, 1, 2, 3]


@settings(deadline=None)  # scikit-learn checks its input slowly on a busy machine
@given(SEEDS, st.sampled_from(sorted(METRICS)))
def test_a_bootstrap_by_group_equals_rows_resampled_by_brute_force(seed: int, name: str) -> None:
    labels, scores, day = some_data(seed)
    chances = 1 / (1 + np.exp(-scores))
    draws = Draws(5, 100, seed)
    (found,) = replicates([METRICS[name].statistic(labels, chances, day)], draws)
    for weights, value in zip(np.concatenate(list(draws.weights())), found, strict=True):
        rows = np.concatenate(
            [np.repeat(np.flatnonzero(day == d), int(weights[d])) for d in range(5)]
        )
        again = METRICS[name].statistic(labels[rows], chances[rows], np.zeros(len(rows), int))
        written_out = again.at(np.ones((1, 1)))[0]
        assert np.isnan(written_out) == np.isnan(value)
        assert np.isnan(value) or value == pytest.approx(written_out)


@given(SEEDS)
def test_auc_of_many_groups_is_that_of_pairs_of_groups(seed: int) -> None:
    labels, scores, day = some_data(seed)
    paired = grouped_auc(labels, scores, day)
    level = np.unique(scores, return_inverse=True)[1]
    ranked = statistics.RankedAuc(level, labels.astype(bool), day)
    weights = next(Draws(5, 100, seed).weights())
    assert np.allclose(paired.at(weights), ranked.at(weights), equal_nan=True)


def test_drawing_in_blocks_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = next(Draws(50, 200, 3).weights())
    monkeypatch.setattr(bootstrap, "BLOCK", 50 * 7)
    blocks = list(Draws(50, 200, 3).weights())
    assert len(blocks) == 29 and np.array_equal(np.concatenate(blocks), whole)


def test_counting_many_groups_draws_as_many_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "COUNTED_GROUPS", 10)
    weights = next(Draws(50, 400, 3).weights())
    assert (weights.sum(axis=1) == 50).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(50), abs=0.2)
