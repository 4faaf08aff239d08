"""The account of a step: each second in one part, and nothing claimed that is not measured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hpc.train import step_account
from hpc.train.step_account import (
    BACKWARD,
    COMMUNICATION,
    DATA_WAIT,
    FORWARD,
    OPTIMIZER,
    StepAccount,
    columns,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Clock:
    """A clock that a test moves, for the host and for events of a device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = self.device = 0.0
        monkeypatch.setattr(step_account, "time", SimpleNamespace(perf_counter=lambda: self.host))
        clock = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = clock.device

            def synchronize(self) -> None: ...

            def elapsed_time(self, other: Any) -> float:
                return (other.at - self.at) * 1000

        monkeypatch.setattr(torch.cuda, "Event", Event)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_on_a_cpu_parts_are_wall_time_without_the_collectives_in_them(clock: Clock) -> None:
    def all_reduce(seconds: float) -> float:
        clock.host += seconds
        return seconds

    backend = SimpleNamespace(all_reduce=all_reduce)
    account = StepAccount(CPU, recording=True)
    account.time_collectives(backend)
    for _ in range(2):
        clock.host += 100  # between two steps: an evaluation, a checkpoint
        backend.all_reduce(7)
        account.start()
        for part, seconds in ((DATA_WAIT, 1), (FORWARD, 2), (BACKWARD, 4), (OPTIMIZER, 8)):
            clock.host += seconds
            if part in (BACKWARD, OPTIMIZER):
                assert backend.all_reduce(0.5) == 0.5
            account.mark(part)
        clock.host += 3
        account.mark(COMMUNICATION)
    means = account.take()
    assert means == {DATA_WAIT: 1, FORWARD: 2, BACKWARD: 4, OPTIMIZER: 8, COMMUNICATION: 4}
    assert sum(means.values()) == 1 + 2 + 4 + 8 + 3 + 2 * 0.5
    assert columns(means)["forward_seconds"] == 2
    assert account.take() == {}


def test_on_a_gpu_the_device_is_timed_and_no_communication_is_claimed(clock: Clock) -> None:
    account = StepAccount(GPU, recording=True)
    backend = SimpleNamespace(all_reduce=lambda: None)
    account.time_collectives(backend)
    account.start()
    clock.host += 5
    clock.device += 50  # it was idle for that
    account.mark(DATA_WAIT)
    for part, seconds in ((FORWARD, 2), (BACKWARD, 4), (OPTIMIZER, 8)):
        clock.host += 0.001  # a launch
        clock.device += seconds
        account.mark(part)
    clock.host += 9
    account.mark(COMMUNICATION)
    assert account.take() == {DATA_WAIT: 5, FORWARD: 2, BACKWARD: 4, OPTIMIZER: 8}


@pytest.mark.parametrize("device", [CPU, GPU], ids=["cpu", "gpu"])
def test_other_ranks_keep_nothing(clock: Clock, device: torch.device) -> None:
    account = StepAccount(device, recording=False)
    backend = SimpleNamespace(all_reduce=len)
    account.time_collectives(backend)
    assert backend.all_reduce is len
    account.start()
    account.mark(FORWARD)
    assert account.take() == {}
