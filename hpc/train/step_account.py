"""The time of the steps, part by part: seconds between marks that cost next to nothing.

On a CPU the parts are wall time, and communication is the time inside DeepSpeed's collectives and
the one of the loop, waiting for slower ranks included. On a GPU forward, backward and optimizer are
times of the device between two events, which are read when a line is logged; its collectives run
beside the computation, so no communication is claimed there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import torch

DATA_WAIT, FORWARD, BACKWARD, OPTIMIZER = "data_wait", "forward", "backward", "optimizer"
COMMUNICATION = "communication"
PARTS = (DATA_WAIT, FORWARD, BACKWARD, OPTIMIZER, COMMUNICATION)
ON_DEVICE = (FORWARD, BACKWARD, OPTIMIZER)
COLLECTIVES = (
    "all_reduce", "all_reduce_coalesced", "reduce", "reduce_scatter", "reduce_scatter_fn",
    "reduce_scatter_tensor", "broadcast", "all_gather", "all_gather_into_tensor",
    "all_gather_coalesced", "all_to_all", "all_to_all_single", "barrier",
)  # fmt: skip
"""The collectives of DeepSpeed's communication backend, by its names."""


class StepAccount:
    """Seconds of each part of the steps since the last `take`; rank 0's, as all its numbers are.

    `mark(part)` gives `part` the time since the mark before it. `recording` is False on the other
    ranks: their marks do nothing.
    """

    def __init__(self, device: torch.device, recording: bool) -> None:
        self._on_gpu, self._recording = device.type == "cuda", recording
        self._steps = 0
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, Any, Any]] = []
        self._inside = 0.0  # seconds in collectives since the last mark
        self._last, self._last_event = time.perf_counter(), None

    def start(self) -> None:
        """Begin a step: the time until here belongs to no part."""
        if self._recording:
            self._steps += 1
            self._last, self._inside = time.perf_counter(), 0.0
            self._last_event = self._event() if self._on_gpu else None

    def mark(self, part: str) -> None:
        """End `part`."""
        if not self._recording:
            return
        now = time.perf_counter()
        if self._on_gpu and part in ON_DEVICE:
            event = self._event()
            self._events.append((part, self._last_event, event))
            self._last_event = event
        elif not (self._on_gpu and part == COMMUNICATION):
            self._add(part, now - self._last - self._inside)
            if self._on_gpu:  # the device did nothing meanwhile that is this step's
                self._last_event = self._event()
            else:
                self._add(COMMUNICATION, self._inside)
        self._last, self._inside = now, 0.0

    def take(self) -> dict[str, float]:
        """Mean seconds of each part of a step, `PARTS` as far as known; begins anew."""
        for part, begun, ended in self._events:
            ended.synchronize()
            self._add(part, begun.elapsed_time(ended) / 1000)
        steps = max(self._steps, 1)
        means = {part: self._seconds[part] / steps for part in PARTS if part in self._seconds}
        self._steps, self._seconds, self._events = 0, {}, []
        return means

    def time_collectives(self, backend: Any) -> None:
        """Count the time inside the collectives of DeepSpeed's `backend`, on a CPU."""
        if not self._recording or self._on_gpu:
            return
        self._seconds[COMMUNICATION] = 0.0
        for name in COLLECTIVES:
            if hasattr(backend, name):
                setattr(backend, name, self._timed(getattr(backend, name)))

    def _timed(self, collective: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(collective)
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return collective(*arguments, **named)
            finally:
                self._inside += time.perf_counter() - began

        return timed

    def _add(self, part: str, seconds: float) -> None:
        self._seconds[part] = self._seconds.get(part, 0.0) + max(seconds, 0.0)

    def _event(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def columns(means: Mapping[str, float]) -> dict[str, float]:
    """`means` as columns of metrics.jsonl: `forward_seconds` and so on."""
    return {f"{part}_seconds": round(seconds, 6) for part, seconds in means.items()}


def step_account(device: torch.device, recording: bool) -> StepAccount:
    """The account of this process's steps, its collectives through DeepSpeed included."""
    from deepspeed.comm import comm

    account = StepAccount(device, recording)
    account.time_collectives(comm.cdb)  # its module's only handle of the backend in use
    return account
