"""torch.compile of the training model: its names, its evaluation, and a node without a compiler.

The backend here counts its calls and computes as written: no C++ compiler takes part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from conf import ConfigError
from hpc.train.compiled import compile_training, uncompiled

CPU = torch.device("cpu")


class Network(nn.Module):
    """A module of one's own: torch leaves those of its own library alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Engine:
    """The part of a DeepSpeed engine that compiles its module in place."""

    def __init__(self) -> None:
        self.module, self.calls = Network(), 0

    def compile(self) -> None:
        self.module.compile(backend=self._backend)

    def _backend(self, graph: Any, inputs: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            self.calls += 1
            return graph(*arguments)

        return counted


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def test_steps_run_compiled_and_evaluations_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    torch.compiler.set_stance("force_eager")  # as Muon leaves it on a CPU
    engine, x = Engine(), torch.ones(1, 3)
    names, expected = list(engine.module.state_dict()), engine.module(x)
    compile_training(engine, CPU)
    assert torch.equal(engine.module(x), expected)
    assert engine.calls == 1
    with uncompiled(), torch.no_grad():
        assert torch.equal(engine.module(x), expected)
    assert engine.calls == 1
    engine.module(x)
    assert engine.calls == 2
    assert list(engine.module.state_dict()) == names


def test_a_node_without_a_compiler_is_named_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match=r"compile=true: this node has no C\+\+ compiler"):
        compile_training(Engine(), CPU)
    engine = Engine()
    compile_training(engine, torch.device("cuda", 0))  # Triton's, and it comes with torch
