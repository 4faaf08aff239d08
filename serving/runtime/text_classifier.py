"""A text classifier in process: text in, probabilities of its labels out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from .batching import Answer, answer_together
from .errors import InvalidInput
from .labels import class_outputs, softmax
from .session import open_session

KIND = "labelled-text"
MAX_TEXT_BYTES = 65_536


class TextClassifier:
    """The tokenizer and the network of one package version.

    Input: `text` BYTES [batch, 1], UTF-8 of 1 to `max_text_bytes` bytes; tokens beyond the
    dataset's `max_tokens` are cut off. `model.onnx` takes `input_ids` and `attention_mask`, int64
    [batch, T] padded to the longest text of the batch, and gives `logits` [batch, K]. Outputs:
    `probabilities` FP32 [batch, K] and `label` BYTES [batch, 1].
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        session: onnxruntime.InferenceSession,
        max_text_bytes: int = MAX_TEXT_BYTES,
    ):
        self.tokenizer = tokenizer
        self.labels = tuple(labels)
        self.session = session
        self.max_text_bytes = max_text_bytes
        self.fed = {one.name for one in session.get_inputs()}  # a model may need no mask

    @classmethod
    def load(cls, version_dir: Path, settings: Mapping[str, str] | None = None) -> TextClassifier:
        """Read `transform.json`, `tokenizer.json` and `model.onnx` from a package's version folder.

        `settings` are the parameters of config.pbtxt: `threads` and `max_text_bytes`, each with a
        default. Raises ValueError for a transform of another kind.
        """
        given, folder = settings or {}, Path(version_dir)
        content = json.loads((folder / "transform.json").read_text(encoding="utf-8"))
        if content.get("kind") != KIND:
            raise ValueError(f"this is a transform of kind {content.get('kind')!r}, not {KIND!r}")
        session = open_session(folder / "model.onnx", int(given.get("threads", "1")))
        limit = int(given.get("max_text_bytes", MAX_TEXT_BYTES))
        tokenizer = load_tokenizer(
            folder / "tokenizer.json", content["max_tokens"], content["pad_id"]
        )
        return cls(tokenizer, content["labels"], session, limit)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`text` [batch] or [batch, 1] -> `probabilities` and `label`. Raises `InvalidInput`."""
        texts = [self._text(value) for value in self.columns(inputs)["text"].tolist()]
        arrays = token_arrays(self.tokenizer, texts)
        fed = {name: array for name, array in arrays.items() if name in self.fed}
        (logits,) = self.session.run(["logits"], fed)
        return class_outputs(softmax(logits), self.labels)

    def columns(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """{`text`: [batch]}. Raises `InvalidInput` for other names, dtypes or shapes."""
        if set(inputs) != {"text"}:
            raise InvalidInput(f"the one input must be text, not {sorted(inputs)}")
        raw = np.asarray(inputs["text"])
        if raw.dtype.kind not in "OSU" or raw.size == 0 or raw.size != len(raw):
            raise InvalidInput(f"text must be BYTES [batch, 1], not {raw.dtype} {list(raw.shape)}")
        return {"text": raw.reshape(-1)}

    def answer(self, requests: Sequence[Mapping[str, np.ndarray]]) -> list[Answer]:
        """Answer several requests in one run of the network, as if each were alone."""
        return answer_together(self, requests)

    def _text(self, value: object) -> str:
        data = value.encode() if isinstance(value, str) else value
        if not isinstance(data, bytes):
            raise InvalidInput(f"text must be BYTES, not {type(data).__name__}")
        if not data:
            raise InvalidInput("text is empty; there is nothing to classify")
        if len(data) > self.max_text_bytes:
            raise InvalidInput(
                f"text has {len(data)} bytes; at most {self.max_text_bytes} are taken"
            )
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"text is not UTF-8 at byte {error.start}") from None


def load_tokenizer(path: Path, max_tokens: int, pad_id: int) -> Tokenizer:
    """The tokenizer in the file `path`, cutting texts at `max_tokens` and padding with `pad_id`."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=pad_id, pad_token=tokenizer.id_to_token(pad_id))
    return tokenizer


def token_arrays(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """`input_ids` and `attention_mask`, int64 [texts, T]; training and serving both use this."""
    encodings = tokenizer.encode_batch(list(texts))
    return {
        "input_ids": np.array([one.ids for one in encodings], dtype=np.int64),
        "attention_mask": np.array([one.attention_mask for one in encodings], dtype=np.int64),
    }
