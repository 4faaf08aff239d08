"""Micro-batches that a thread has ready before the step that needs them.

Order and content are the source's: the thread only runs ahead of the steps. A source that draws
from the process's generators (torch's, numpy's, Python's) is left in the steps' own thread, since
its draws would mix with those of the model, and a resumed run would not go on bit for bit.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)

Batch = dict[str, Tensor]
_POLL_SECONDS = 0.2
"""Pause between two looks of a waiting thread at whether it is still wanted."""


def loaded(source: Iterator[Batch], ahead: int, pinned: bool) -> Iterator[Batch]:
    """The batches of `source`, `ahead` of them read beforehand; in pinned memory if `pinned`.

    The first one is made here. With `ahead` 0, and for a source that draws from the process's
    generators, it is `source` itself. Raises what `source` raises, in its place.
    """
    if ahead == 0:
        return source
    before = _generators()
    try:
        first = next(source)
    except StopIteration:
        return iter(())
    if _generators() != before:
        log.info("batches are made in the training thread: they draw from its generators")
        return chain([first], source)
    return Prefetched(chain([first], source), ahead, pinned)


class Prefetched:
    """An iterator over `source` that a thread runs, at most `ahead` batches before its reader."""

    def __init__(self, source: Iterator[Batch], ahead: int, pinned: bool) -> None:
        self._source, self._pinned = source, pinned
        self._ready: queue.Queue[tuple[Batch | None, BaseException | None]] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    def __iter__(self) -> Prefetched:
        return self

    def __next__(self) -> Batch:
        if self._closed.is_set():
            raise StopIteration
        batch, error = self._ready.get()
        if batch is None:
            self._closed.set()
            raise error or StopIteration
        return batch

    def close(self) -> None:
        """End the thread; batches that it had ready are dropped."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for batch in self._source:
                ready = (
                    {name: values.pin_memory() for name, values in batch.items()}
                    if self._pinned
                    else batch
                )
                if not self._put((ready, None)):
                    return
            self._put((None, None))
        except BaseException as error:  # noqa: BLE001  # raised again where the batch is wanted
            self._put((None, error))

    def _put(self, item: tuple[Batch | None, BaseException | None]) -> bool:
        """Wait for room; False when the reader has closed."""
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False


def _generators() -> tuple[Any, ...]:
    """The state of every generator that a batch may draw from."""
    state = np.random.get_state(legacy=True)
    drawn = (state[0], bytes(state[1]), *state[2:])  # type: ignore[index]
    return random.getstate(), drawn, bytes(torch.get_rng_state().numpy())
