"""The quality gates on scores we make ourselves: what passes, what fails, by which side."""

import gzip
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.release import flights, lm
from serving.release.flights import BaseRateGate, Holdout, NotWorseGate, Split
from serving.release.lm import BaselineGate, Bits
from tests.serving.artifact.conftest import make_manifest

HOLDOUT = Holdout("holdout", 1, 500, 0.95, 7)
NOT_WORSE = NotWorseGate(True, 0.0, 0.0)


@pytest.fixture(scope="module")
def world() -> tuple[Split, np.ndarray]:
    """A split of 40 days, and the true chance of each row."""
    random = np.random.default_rng(0)
    day = np.repeat(np.arange(40), 100)
    chance = 1 / (1 + np.exp(-random.normal(np.repeat(random.normal(0, 0.5, 40), 100), 1.0)))
    return Split({}, (random.random(4000) < chance).astype(np.int8), day), chance


def verdicts(records) -> list[str]:
    return [record.verdict for record in records]


def test_the_truth_is_clearly_better_than_the_base_rate_and_noise_is_not(world) -> None:
    split, chance = world
    gate, rate = BaseRateGate(True, 0.05), float(split.late.mean())
    truth = flights.quality(split, chance)
    assert verdicts(flights.against_base_rate(gate, HOLDOUT, split, truth, rate)) == ["pass"] * 2
    noise = flights.quality(split, np.random.default_rng(1).random(4000))
    assert verdicts(flights.against_base_rate(gate, HOLDOUT, split, noise, rate)) == ["fail"] * 2
    constant = flights.quality(split, np.full(4000, rate))
    found = list(flights.against_base_rate(gate, HOLDOUT, split, constant, rate))
    assert found[0].verdict == "fail" and found[0].value == pytest.approx(0)


def test_not_worse_means_that_the_interval_reaches_it(world) -> None:
    split, chance = world
    truth = flights.quality(split, chance)
    shaky = np.clip(chance + np.random.default_rng(2).normal(0, 0.3, 4000), 0.01, 0.99)
    worse = flights.quality(split, shaky)

    def compare(model, other, gate=NOT_WORSE):
        return verdicts(flights.not_worse("lr", gate, HOLDOUT, split, model, other))

    assert compare(truth, truth) == compare(truth, worse) == ["pass", "pass"]
    assert compare(worse, truth) == ["fail", "fail"]
    assert compare(worse, truth, NotWorseGate(True, 0.5, 0.5)) == ["pass", "pass"]


def test_a_model_that_only_scales_its_chances_fails_log_loss_alone(world) -> None:
    split, chance = world
    timid = flights.quality(split, 0.5 + (chance - 0.5) * 0.1)
    truth = flights.quality(split, chance)
    records = flights.not_worse("lr", NOT_WORSE, HOLDOUT, split, timid, truth)
    assert verdicts(records) == ["pass", "fail"]


@given(st.text(min_size=1, max_size=300), st.integers(4, 60))
def test_chunks_are_text_and_join_to_the_text(text: str, size: int) -> None:
    data = text.encode("utf-8", "replace")
    pieces = list(lm.chunks(data, size))
    assert b"".join(pieces) == data
    for piece in pieces:
        assert 0 < len(piece) <= size
        piece.decode("utf-8")


def test_chunks_end_at_a_line_end_where_there_is_one() -> None:
    assert list(lm.chunks(b"one line\nanother line\n", 12)) == [
        b"one line\n",
        b"another line",
        b"\n",
    ]


def test_the_baselines_are_the_real_compressors() -> None:
    text = b"The quick brown fox. " * 500
    found = lm.baselines(text)
    assert found["gzip"] == pytest.approx(8 * len(gzip.compress(text, 9)) / len(text))
    assert 0 < found["xz"] < 8


def test_bits_per_byte_counts_nats_as_bits() -> None:
    assert Bits(nats=8 * math.log(2) * 100, bytes=100, chunks=1).per_byte == pytest.approx(8)


@pytest.mark.parametrize(("needs", "verdict"), [(2.0, "pass"), (2.62, "pass"), (2.63, "fail")])
def test_a_compressor_is_beaten_or_not(needs: float, verdict: str) -> None:
    model = Bits(needs * math.log(2) * 1000, 1000, 1)
    record = lm.against("gzip", BaselineGate(True, 1.0), model, 2.6200001)
    assert (record.name, record.verdict) == ("bits.vs_gzip", verdict)
    assert record.value == pytest.approx(needs)


def test_productions_own_number_counts_only_for_the_same_text(tmp_path) -> None:
    (tmp_path / "f.json").write_text("{}")
    made = make_manifest(tmp_path)
    judged = replace(made.gates[0], name="bits.vs_gzip", value=1.5)
    made = replace(made, gates=(judged,))
    assert lm.measured(made, made.lineage.dataset.digest) == 1.5
    assert lm.measured(made, "0" * 64) is None
    assert lm.measured(replace(made, gates=()), made.lineage.dataset.digest) is None
