"""Hugging Face models from a folder of weights: the same numbers, and refusals as sentences."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conf import ConfigError
from conf.schema import from_config
from hpc.models.huggingface import HuggingFaceModel

TINY = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 16,
}  # fmt: skip
LABELS = ("no", "yes")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    model = HuggingFaceModel(config=TINY).build(LABELS, vocabulary=40, pad_id=0)
    model.save_pretrained(folder)
    return folder


def test_weights_on_disk_are_the_models_weights(saved: Path) -> None:
    torch.manual_seed(1)  # other initial draws, which the weights replace
    model = HuggingFaceModel(path=str(saved)).build(LABELS, vocabulary=40, pad_id=0).eval()
    torch.manual_seed(0)
    first = HuggingFaceModel(config=TINY).build(LABELS, vocabulary=40, pad_id=0).eval()
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, first(input_ids=ids).logits)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert model.config.id2label == {0: "no", 1: "yes"}


def test_weights_of_another_vocabulary_are_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match="40 tokens and the dataset's tokenizer 41"):
        HuggingFaceModel(path=str(saved)).build(LABELS, vocabulary=41, pad_id=0)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "there is no config.json"),
        (("config.json", "pytorch_model.bin"), "there is no model.safetensors"),
    ],
)
def test_a_folder_without_safetensors_is_refused(
    tmp_path: Path, files: tuple[str, ...], words: str
) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=rf"model\.path=.*{words}"):
        from_config(HuggingFaceModel, {"path": str(tmp_path)}, "model")


@pytest.mark.parametrize("node", [{}, {"config": TINY, "path": "/weights"}])
def test_exactly_one_of_config_and_path_is_given(node: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="give exactly one of them"):
        from_config(HuggingFaceModel, node, "model")
