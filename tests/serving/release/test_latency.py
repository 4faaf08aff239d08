"""Latency verdicts. The endpoint is a stand-in for a server that is slow or fails to order."""

import time
from dataclasses import replace

import numpy as np
import pytest

from serving.release.gates.latency import LatencyGate, LatencyLimits, measure_latency
from serving.triton.grpc_client import InferError

from .subjects import bare_subject

GATE = LatencyGate(
    required=True, low=LatencyLimits(1, 50, 80), high=LatencyLimits(4, 50, 80), rounds=2,
    round_s=0.1, min_requests=5, max_ratio=2.0, slack_ms=5.0,
)  # fmt: skip
PAYLOADS = [{"x": np.zeros(1)}]


class Standin:
    def __init__(self, seconds: float = 0.0, fails_every: int = 0) -> None:
        self.seconds, self.fails_every, self.asked = seconds, fails_every, 0

    def infer(self, inputs: dict) -> dict:
        self.asked += 1
        time.sleep(self.seconds)
        if self.fails_every and self.asked % self.fails_every == 0:
            raise InferError("no")
        return {}


def verdicts(gate: LatencyGate, candidate: Standin, production: Standin | None = None) -> dict:
    records = measure_latency(gate, "latency", PAYLOADS, candidate, production)  # type: ignore[arg-type]
    return {record.name: record.verdict for record in records}


def test_what_is_declared_is_judged() -> None:
    for production in (None, Standin(0.001)):
        found = verdicts(GATE, Standin(0.001), production)
        subject = bare_subject(production=production)
        assert tuple(found) == GATE.names("latency", subject)
        assert set(found.values()) == {"pass"}


def test_a_slow_package_fails_against_its_limits_and_against_production() -> None:
    strict = replace(GATE, low=LatencyLimits(1, 10, 15), high=LatencyLimits(4, 10, 15), rounds=4)
    found = verdicts(strict, Standin(0.03), Standin(0.001))
    assert set(found.values()) == {"fail"}


def test_failed_requests_are_unknown_however_fast_the_rest_was() -> None:
    found = verdicts(GATE, Standin(0.001, fails_every=3))
    assert set(found.values()) == {"unknown"}


def test_too_few_answers_say_nothing() -> None:
    found = verdicts(replace(GATE, min_requests=10_000), Standin(0.001), Standin(0.001))
    assert set(found.values()) == {"unknown"}


def test_without_a_request_to_send_nothing_is_measured() -> None:
    with pytest.raises(ValueError, match="no request to measure with"):
        list(measure_latency(GATE, "latency", [], Standin(), None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change", [{"rounds": 0}, {"round_s": 0.0}, {"low": LatencyLimits(8, 1, 1)}]
)
def test_settings_that_measure_nothing_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        replace(GATE, **change)
