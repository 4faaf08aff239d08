"""A Hugging Face sequence classifier: from a config, or from safetensors weights on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from conf.names import nearest

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class HuggingFaceModel:
    """`transformers.AutoModelForSequenceClassification`, of `config` or of the folder `path`.

    Nothing is downloaded, no code of the folder is run and no pickle is read.
    See https://huggingface.co/docs/transformers/model_doc/auto
    """

    declares_hidden_matrices: ClassVar[bool] = False
    built_at_submit: ClassVar[bool] = True
    """Its settings are those of `transformers`, which only building the model checks."""

    config: dict[str, Any] = field(default_factory=dict)
    """`model_type` (bert, distilbert, ...) and any key of that model's config class."""
    path: str = ""
    """A folder with config.json and model.safetensors, read by every rank."""

    def __post_init__(self) -> None:
        if bool(self.config) == bool(self.path):
            raise ValueError("config={...} or path=FOLDER: give exactly one of them")
        if self.config and not isinstance(self.config.get("model_type"), str):
            raise ValueError("config.model_type is missing, as in config.model_type=bert")
        if self.path and not (Path(self.path) / "config.json").is_file():
            raise ValueError(f"path={self.path}: there is no config.json in it")
        if self.path and not any((Path(self.path) / name).is_file() for name in WEIGHTS):
            raise ValueError(f"path={self.path}: there is no model.safetensors in it")

    def build(self, labels: Sequence[str], vocabulary: int, pad_id: int) -> nn.Module:
        """A classifier of `labels` over a tokenizer of `vocabulary` tokens, in fp32.

        Raises ValueError for a key that the model's config does not have, and for weights of
        another vocabulary.
        """
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification

        names = {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {label: index for index, label in enumerate(labels)},
        }
        if self.path:
            model = AutoModelForSequenceClassification.from_pretrained(
                self.path, use_safetensors=True, local_files_only=True, trust_remote_code=False,
                dtype=torch.float32, **names,
            )  # fmt: skip
        else:
            made = self._config(AutoConfig, vocab_size=vocabulary, pad_token_id=pad_id, **names)
            model = AutoModelForSequenceClassification.from_config(made, dtype=torch.float32)
        if model.config.vocab_size != vocabulary:
            raise ValueError(
                f"path={self.path}: its embedding has {model.config.vocab_size} tokens and the "
                f"dataset's tokenizer {vocabulary}; prepare the data with the model's tokenizer"
            )
        return model

    def _config(self, auto_config: Any, **sizes: Any) -> Any:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

        given = dict(self.config)
        kind = given.pop("model_type")
        if kind not in CONFIG_MAPPING_NAMES:
            raise ValueError(
                f"config.model_type={kind}: transformers has no such model. "
                f"{nearest(kind, CONFIG_MAPPING_NAMES)}"
            )
        config_class = CONFIG_MAPPING[kind]
        if is_dataclass(config_class):  # otherwise any key is an attribute, a misspelt one too
            known = {one.name for one in fields(config_class)} | set(config_class.attribute_map)
            for key in given:
                if key not in known:
                    raise ValueError(
                        f"config.{key}: {config_class.__name__} has no such key. "
                        f"{nearest(key, known)}"
                    )
        return auto_config.for_model(kind, **{**given, **sizes})
