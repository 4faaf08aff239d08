"""Reference statistics: disjoint fixed bins whose shares add up."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.runtime.reference import (
    CONFIDENCE,
    bins,
    count,
    fit_reference,
    output_reference,
    token_reference,
)
from tests.serving.runtime.test_transform import TRANSFORM, columns, rows


def reference() -> dict:
    draw = np.random.default_rng(0)
    batch = [
        {
            "carrier": draw.choice([b"AA", b"B6", b"??"]),
            "distance": float(draw.uniform(100, 3000)),
            "weekday": int(draw.integers(0, 7)),
            "maker": draw.choice([b"", b"BOEING"]),
            "wind_dir": float(draw.choice([np.nan, 90.0, 180.0])),
            "minute": int(draw.integers(300, 1400)),
            "temp": float(draw.choice([np.nan, *range(20, 90)])),
        }
        for _ in range(3000)
    ]
    chances = draw.uniform(size=3000).astype(np.float32)
    return fit_reference(TRANSFORM, columns(batch), {CONFIDENCE: chances})


REFERENCE = reference()


def test_shares_add_up_and_every_bin_is_there() -> None:
    assert set(REFERENCE["features"]) == {one.name for one in TRANSFORM.features} | {CONFIDENCE}
    for described in REFERENCE["features"].values():
        assert list(described["ratios"]) == bins(described)
        assert abs(sum(described["ratios"].values()) - 1) < 1e-6


def test_bins_of_a_number_hold_about_a_tenth_each() -> None:
    described = REFERENCE["features"]["distance"]
    assert len(described["edges"]) == 9
    shares = [share for name, share in described["ratios"].items() if name != "missing"]
    assert max(abs(share - 0.1) for share in shares) < 0.01


@given(st.lists(rows, min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_every_value_falls_into_exactly_one_bin(batch: list[dict]) -> None:
    for name, column in columns(batch).items():
        counted = count(REFERENCE["features"][name], column)
        assert sum(counted.values()) == len(batch)
        assert list(counted) == bins(REFERENCE["features"][name])


def test_values_have_their_bins() -> None:
    described = {"kind": "number", "edges": [0.0, 1.0], "low": -5.0, "high": 5.0}
    values = np.array([-6, -1, 0, 0.5, 1, 5, 6, np.nan], np.float32)
    assert count(described, values) == {"b00": 1, "b01": 2, "b02": 2, "missing": 3}
    words = np.array([b"AA", b"ZZ", b""], object)
    assert count({"kind": "category", "categories": ["AA"]}, words) == {"AA": 1, "other": 2}


def test_the_training_split_has_its_own_shares() -> None:
    """A stable feature has PSI 0 against itself; a shifted one clearly more."""
    described = REFERENCE["features"]["distance"]
    draw = np.random.default_rng(1)
    same = count(described, draw.uniform(100, 3000, 20_000).astype(np.float32))
    moved = count(described, draw.uniform(1500, 3000, 20_000).astype(np.float32))
    assert _psi(described["ratios"], same) < 0.02
    assert _psi(described["ratios"], moved) > 1


def test_outputs_have_bins_of_their_own_kind() -> None:
    draw = np.random.default_rng(2)
    outputs = {
        "chance": draw.uniform(size=(500, 1)).astype(np.float32),
        "price": draw.normal(300, 50, (500, 1)).astype(np.float32),
        "label": draw.choice(np.array([b"oak", b"elm"], object), (500, 1)),
    }
    reference = output_reference(outputs)
    assert reference["format"] == 1 and reference["rows"] == 500
    found = reference["features"]
    assert found["chance"]["edges"] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert found["label"]["categories"] == ["elm", "oak"]
    shares = [share for name, share in found["price"]["ratios"].items() if name != "missing"]
    assert len(shares) == 10 and max(abs(share - 0.1) for share in shares) < 0.01
    for described in found.values():
        assert list(described["ratios"]) == bins(described)


def test_tokens_have_bins_of_about_equal_share() -> None:
    draw = np.random.default_rng(3)
    tokens = np.minimum(draw.geometric(0.01, 20_000), 999).astype(np.uint16)
    reference = token_reference(tokens, 1000)
    described = reference["features"]["token"]
    assert reference["rows"] == 20_000 and list(described["ratios"]) == bins(described)
    assert abs(sum(described["ratios"].values()) - 1) < 1e-6
    assert described["ratios"]["missing"] == 0
    counts = np.bincount(tokens, minlength=1000)
    first = described["edges"][0]
    assert counts[:first].sum() <= 2000 < counts[: first + 1].sum() + 1
    counted = count(described, tokens)
    for name, share in described["ratios"].items():
        assert share == round(counted[name] / 20_000, 8)


def _psi(ratios: dict[str, float], counted: dict[str, int]) -> float:
    total = sum(counted.values())
    pairs = [(max(counted[name] / total, 1e-4), max(share, 1e-4)) for name, share in ratios.items()]
    return sum((live - train) * np.log(live / train) for live, train in pairs)
