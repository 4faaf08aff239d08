"""Traffic in the background: started, watched, stopped, summed up."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from scripts.loadtest.client import WRONG, HttpConnection, Seen, connect_http
from scripts.loadtest.grpc_client import GrpcConnection, connect_grpc
from scripts.loadtest.plan import LoadPlan, Result

# Where answers are so slow that every connection is taken, requests fall behind their time. They
# are made up for this long after the end; what is then left was never sent.
CATCH_UP_S = 1.0


@dataclass
class Running:
    """Traffic that is being sent by background threads; it also ends by itself."""

    plan: LoadPlan
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    _next: int = 0
    _seen: list[Seen] = field(default_factory=list)
    _ended: float | None = None

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def sent(self) -> int:
        """Requests that were answered or failed so far."""
        return len(self._seen)

    def seen(self) -> list[Seen]:
        """The outcomes of the requests so far."""
        with self._lock:
            return list(self._seen)

    def answered_by(self) -> Counter[str]:
        """The number of good answers of each version so far."""
        with self._lock:
            return Counter(seen.version for seen in self._seen if not seen.failure)

    def wait(self) -> Result:
        """Wait until the plan is done, or `stop` or `cut_short` was called; returns the result."""
        for thread in self._threads:
            thread.join()
        if self._ended is None:
            self._ended = time.monotonic()
        return _summary(self.plan, self._seen, self._ended - self._started)

    def stop(self) -> Result:
        """Send nothing new, let what is in flight be answered, and return the result."""
        self.cut_short()
        return self.wait()

    def cut_short(self) -> None:
        """Ask for the end without waiting for it; safe in a signal handler."""
        self._stop.set()

    def _ticket(self) -> int | None:
        with self._lock:
            late = time.monotonic() > self._started + self.plan.duration_s + CATCH_UP_S
            if self._next >= self.plan.requests or self._stop.is_set() or late:
                return None
            self._next += 1
            return self._next - 1

    def _work(self) -> None:
        kept: dict[str, HttpConnection | GrpcConnection] = {}
        connect = connect_grpc if self.plan.grpc else connect_http
        regions = sorted(self.plan.endpoints)
        while (ticket := self._ticket()) is not None:
            due = self._started + ticket / self.plan.rate
            if self._stop.wait(max(0.0, due - time.monotonic())):
                break
            region = regions[ticket % len(regions)]
            example = self.plan.examples[ticket // len(regions) % len(self.plan.examples)]
            keep = (ticket // len(regions)) % self.plan.new_connection_every != 0
            connection = kept.pop(region, None) if keep else None
            if connection is None or not connection.usable():
                if connection is not None:
                    connection.close()
                connection = connect(*self.plan.endpoints[region], self.plan.timeout_s)
            seen = connection.send(region, self.plan.model, example, due)
            if keep and seen.reusable:
                kept[region] = connection
            else:
                connection.close()
            with self._lock:
                self._seen.append(replace(seen, ended=time.monotonic()))
        for connection in kept.values():
            connection.close()


def start(plan: LoadPlan) -> Running:
    """Begin to send; the caller waits (`wait`), stops (`stop`) or leaves a `with` block."""
    running = Running(plan)
    for _ in range(min(plan.concurrency, plan.requests)):
        thread = threading.Thread(target=running._work, name="traffic", daemon=True)
        running._threads.append(thread)
        thread.start()
    return running


def _summary(plan: LoadPlan, seen: Sequence[Seen], seconds: float) -> Result:
    good = [one for one in seen if not one.failure]
    bad = [one for one in seen if one.failure]
    latencies = sorted(one.latency_s * 1e3 for one in good)
    regions = {
        region: {
            "sent": sum(one.region == region for one in seen),
            "failed": sum(one.region == region for one in bad),
        }
        for region in sorted(plan.endpoints)
    }
    return Result(
        model=plan.model,
        seconds=round(seconds, 3),
        planned=plan.requests,
        sent=len(seen),
        ok=len(good),
        failed=len(bad),
        wrong=sum(one.failure == WRONG for one in bad),
        checked=sum(one.checked for one in good),
        failures=dict(Counter(one.failure for one in bad)),
        versions=dict(sorted(Counter(one.version for one in good).items())),
        regions=regions,
        p50_ms=_quantile(latencies, 0.50),
        p99_ms=_quantile(latencies, 0.99),
        max_ms=_quantile(latencies, 1.0),
        examples_of_failure=[
            {
                "region": one.region,
                "failure": one.failure,
                "detail": one.detail,
                "request_id": one.request_id,
            }
            for one in bad[:5]
        ],
    )


def _quantile(ascending: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile; None of nothing."""
    if not ascending:
        return None
    return round(ascending[max(0, math.ceil(share * len(ascending)) - 1)], 3)
