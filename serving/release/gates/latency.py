"""The latency gate: a package at low and at higher concurrency, beside the version in production.

A batching policy that is quick under load can wait half a second for one client: both ends are
measured, and p99 counts. Candidate and production take turns, round by round, so that
what else the machine does meanwhile falls on both.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.artifact.manifest import GateRecord
from serving.release.gate import at_most, unknown
from serving.release.subject import GateSubject
from serving.triton.grpc_client import Arrays, InferError, ModelClient


@dataclass(frozen=True)
class LatencyLimits:
    """Limits at one number of clients, in milliseconds."""

    clients: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class LatencyGate:
    """p50 and p99 of one request through gRPC on loopback, in milliseconds."""

    required: bool
    low: LatencyLimits
    """With few clients: a batcher that waits shows here."""
    high: LatencyLimits
    """With many clients."""
    rounds: int
    """Turns of each package."""
    round_s: float
    """Seconds of one turn."""
    min_requests: int
    """Fewer answers do not give a p99."""
    max_ratio: float
    """p99 against production's, at most ..."""
    slack_ms: float
    """... plus this much, below which a difference is noise."""

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds={self.rounds}: must be at least 1")
        if self.round_s <= 0:
            raise ValueError(f"round_s={self.round_s}: must be above 0")
        if self.low.clients < 1:
            raise ValueError(f"low.clients={self.low.clients}: must be at least 1")
        if self.high.clients < self.low.clients:
            raise ValueError(
                f"high.clients={self.high.clients}: must be at least low.clients, "
                f"which is {self.low.clients}"
            )

    def names(self, name: str, subject: GateSubject) -> tuple[str, ...]:
        found = []
        for limits in (self.low, self.high):
            found += [f"{name}.p50.c{limits.clients}", f"{name}.p99.c{limits.clients}"]
            if subject.production is not None:
                found.append(f"{name}.vs_production.c{limits.clients}")
        return tuple(found)

    def run(self, name: str, subject: GateSubject) -> Iterator[GateRecord]:
        payloads = [dict(example.inputs) for example in subject.golden_examples()]
        served = subject.served()
        return measure_latency(self, name, payloads, served.candidate, served.production)


@dataclass
class Latencies:
    """Seconds of each answered request, and how many failed."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0

    def ms(self, quantile: float) -> float:
        return float(np.quantile(self.seconds, quantile) * 1000) if self.seconds else float("nan")

    def __str__(self) -> str:
        shown = f"p50 {self.ms(0.5):.1f} ms, p99 {self.ms(0.99):.1f} ms of {len(self.seconds)}"
        return f"{shown}, {self.failed} failed" if self.failed else shown


def measure_latency(
    gate: LatencyGate,
    name: str,
    payloads: Sequence[Arrays],
    candidate: ModelClient,
    production: ModelClient | None,
) -> Iterator[GateRecord]:
    """Measure at both concurrencies; records against the limits and against production.

    Raises ValueError when there is nothing to send.
    """
    if not payloads:
        raise ValueError("there is no request to measure with: golden.json is empty")
    endpoints = [candidate] if production is None else [candidate, production]
    for limits in (gate.low, gate.high):
        found = interleaved(endpoints, payloads, limits.clients, gate.rounds, gate.round_s)
        yield from _records(gate, name, limits, found[0], found[1] if production else None)


def interleaved(
    endpoints: Sequence[ModelClient],
    payloads: Sequence[Arrays],
    clients: int,
    rounds: int,
    round_s: float,
) -> list[Latencies]:
    """Load each endpoint in turn, `rounds` times, with `clients` at a time; one result each."""
    for endpoint in endpoints:
        _load(endpoint, payloads, clients, round_s / 4)  # warm: first calls are nobody's latency
    found = [Latencies() for _ in endpoints]
    for _ in range(rounds):
        for endpoint, total in zip(endpoints, found, strict=True):
            one = _load(endpoint, payloads, clients, round_s)
            total.seconds += one.seconds
            total.failed += one.failed
    return found


def _load(
    endpoint: ModelClient, payloads: Sequence[Arrays], clients: int, seconds: float
) -> Latencies:
    total, lock, over = Latencies(), threading.Lock(), threading.Event()
    stop = time.monotonic() + seconds

    def client(number: int) -> None:
        mine, turn = Latencies(), number
        while time.monotonic() < stop and not over.is_set():
            started = time.monotonic()
            try:
                endpoint.infer(payloads[turn % len(payloads)])
                mine.seconds.append(time.monotonic() - started)
            except InferError:
                mine.failed += 1
            turn += clients
        with lock:
            total.seconds += mine.seconds
            total.failed += mine.failed

    threads = [threading.Thread(target=client, args=(n,), daemon=True) for n in range(clients)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        over.set()  # of an interrupt: nobody waits for the clients, and they end by themselves
    return total


def _records(
    gate: LatencyGate,
    prefix: str,
    limits: LatencyLimits,
    found: Latencies,
    production: Latencies | None,
) -> Iterator[GateRecord]:
    for quantile, limit in ((0.5, limits.p50_ms), (0.99, limits.p99_ms)):
        name = f"{prefix}.p{quantile * 100:.0f}.c{limits.clients}"
        if found.failed:
            yield unknown(name, f"{found.failed} requests failed while it was measured")
        elif len(found.seconds) < gate.min_requests:
            yield unknown(name, f"{len(found.seconds)} answers are fewer than {gate.min_requests}")
        else:
            yield at_most(name, found.ms(quantile), limit, f"ms; {found}")
    if production is None:
        return
    name = f"{prefix}.vs_production.c{limits.clients}"
    if min(len(found.seconds), len(production.seconds)) < gate.min_requests:
        yield unknown(name, f"too few answers: {len(found.seconds)}, {len(production.seconds)}")
        return
    allowed = gate.max_ratio * production.ms(0.99) + gate.slack_ms
    detail = f"ms p99; production {production}; allowed {gate.max_ratio:g}x + {gate.slack_ms:g} ms"
    yield at_most(name, found.ms(0.99), allowed, detail)
