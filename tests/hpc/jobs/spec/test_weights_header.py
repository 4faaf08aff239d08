from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from conf import ConfigError
from hpc.jobs.spec.ancestry import InitialWeights
from hpc.jobs.spec.weights_header import check_shapes, weight_shapes
from hpc.train.errors import CheckpointError
from hpc.train.initial_weights import load_initial_weights
from serving.artifact.digest import file_sha256


def saved(path: Path, model: nn.Module) -> InitialWeights:
    save_file(model.state_dict(), path)
    return InitialWeights("flights-1", 40, str(path), file_sha256(path))


def test_weights_of_a_checkpoint_are_put_into_a_model_of_the_same_shapes(tmp_path: Path) -> None:
    before, after = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    nn.init.normal_(before.weight)
    before.running_mean.fill_(2)
    initial = saved(tmp_path / "model.safetensors", before)
    assert weight_shapes(Path(initial.path)) == {
        "weight": (3,), "bias": (3,), "running_mean": (3,), "running_var": (3,),
        "num_batches_tracked": (),
    }  # fmt: skip
    load_initial_weights(after, initial)
    for name, value in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], value)


def test_a_file_that_is_not_what_was_frozen_is_not_loaded(tmp_path: Path) -> None:
    initial = saved(tmp_path / "model.safetensors", nn.Linear(2, 2))
    save_file(nn.Linear(2, 2).state_dict(), initial.path)
    with pytest.raises(CheckpointError, match="is not what was frozen at submit"):
        load_initial_weights(nn.Linear(2, 2), initial)
    Path(initial.path).unlink()
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        load_initial_weights(nn.Linear(2, 2), initial)


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        ({"a": (2, 3)}, {"a": (3, 2)}, "other shapes: a is 2x3 there and 3x2 here"),
        ({"a": (), "b": (1,)}, {"a": ()}, "only there: b"),
        ({}, dict.fromkeys("abcde", (1,)), "only here: a, b, c and 2 more"),
    ],
)
def test_weights_of_another_model_are_refused_by_name(there, here, words: str) -> None:
    with pytest.raises(ConfigError, match="init_from=flights-1@40: its weights") as refusal:
        check_shapes(there, here, "flights-1@40")
    assert words in str(refusal.value)
    check_shapes(here, here, "flights-1@40")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 8, (2).to_bytes(8, "little") + b"[]", (9).to_bytes(8, "little") + b'{"a": {}}'],
)
def test_what_is_no_safetensors_file_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ConfigError, match="is no safetensors file"):
        weight_shapes(tmp_path / "x")
