"""The random state of one rank, as JSON: what a resumed run must continue with."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch


def seed_generators(number: int) -> None:
    """Seed every generator that training code may draw from."""
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)


def reseed_generators(number: int, step: int, rank: int, world_size: int) -> None:
    """Seed a rank that goes on after `step` among another number of ranks than before.

    No rank draws what any rank has drawn before, nor what it would have with other ranks.
    """
    sequence = np.random.SeedSequence([number, step, world_size, rank])
    seed_generators(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))


def write_random_state(path: Path) -> None:
    """Write the state of this process's generators."""
    path.write_text(random_state())


def random_state() -> str:
    """The state of this process's generators, its GPU's included, as JSON."""
    version, internal, gauss = random.getstate()
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    numpy_state = np.random.get_state(legacy=False)
    content = {
        "python": [version, list(internal), gauss],
        "numpy": {**numpy_state, "state": _plain(numpy_state["state"])},  # type: ignore[arg-type]
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": None if cuda is None else cuda.numpy().tobytes().hex(),
    }
    return json.dumps(content)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put the generators back, at the end, to where they are now."""
    before = random_state()
    try:
        yield
    finally:
        _restore(before)


def restore_random_state(path: Path) -> None:
    """Continue from the file of `write_random_state`."""
    _restore(path.read_text())


def _restore(text: str) -> None:
    content = json.loads(text)
    version, internal, gauss = content["python"]
    random.setstate((version, tuple(internal), gauss))
    state = content["numpy"]
    key = np.array(state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**state, "state": {**state["state"], "key": key}})
    torch.set_rng_state(_bytes(content["torch"]))
    if content["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(_bytes(content["cuda"]))


def _plain(state: dict[str, object]) -> dict[str, object]:
    return {key: np.asarray(value).tolist() for key, value in state.items()}


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
