"""Stop signals inside an evaluation: heard before each forward pass of the evaluated model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from hpc.train.watch import Watch


class StopHeard(BaseException):
    """A stop signal arrived; no error, so that no task takes it for one of its own."""


@contextmanager
def polled(model: nn.Module, stop: Callable[[], bool], watch: Watch) -> Iterator[None]:
    """Raise `StopHeard` in the forward pass of `model` that follows a signal."""

    def poll(*_: object) -> None:
        watch.enter("evaluation")
        if stop():
            raise StopHeard

    handle = model.register_forward_pre_hook(poll)
    try:
        yield
    finally:
        handle.remove()
