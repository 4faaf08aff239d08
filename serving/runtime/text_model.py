"""The language model in process: scores a text and continues it, greedily."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from .batching import Answer, answer_alone
from .errors import InvalidInput
from .session import open_session
from .windows import windows

CONTEXT = "lockgate.context"
"""The key of the context length, in tokens, in the ONNX model's metadata."""


@dataclass(frozen=True)
class TextLimits:
    """Limits of one request; a larger one is refused, so that nobody waits behind it."""

    max_text_bytes: int = 65_536
    max_new_tokens: int = 256


@dataclass(frozen=True)
class Continuation:
    """New tokens, and for each the gap in logits between it and the next best one."""

    tokens: list[int]
    margins: list[float]


class TextModel:
    """The tokenizer and the network of one package version.

    Inputs: `text` BYTES [1], 1 to `max_text_bytes` bytes of UTF-8; `max_new_tokens` INT32 [1], 0 to
    only score. Outputs: `completion` BYTES [1], the greedy continuation; `tokens` INT32 [1], how
    many tokens the text has; `nats` FP64 [1], the negative log-likelihood of the whole text. Every
    token but the first is priced by the model, in windows of `context` tokens moved by half of it;
    the first, which has nothing before it, costs log(vocabulary size). So nats / ln 2 / bytes of
    the text is an honest code length in bits per byte, whatever the text is cut into.
    """

    def __init__(
        self, tokenizer: Tokenizer, session: onnxruntime.InferenceSession, limits: TextLimits
    ):
        self.tokenizer = tokenizer
        self.session = session
        self.limits = limits
        self.context = int(session.get_modelmeta().custom_metadata_map[CONTEXT])
        self.vocabulary = tokenizer.get_vocab_size()

    @classmethod
    def load(cls, version_dir: Path, settings: Mapping[str, str] | None = None) -> TextModel:
        """Read `tokenizer.json` and `model.onnx` from a package's version folder.

        `settings` are the parameters of config.pbtxt: `threads`, `max_text_bytes` and
        `max_new_tokens`, each with a default.
        """
        given = settings or {}
        limits = TextLimits(
            int(given.get("max_text_bytes", TextLimits.max_text_bytes)),
            int(given.get("max_new_tokens", TextLimits.max_new_tokens)),
        )
        session = open_session(Path(version_dir) / "model.onnx", int(given.get("threads", "1")))
        tokenizer = Tokenizer.from_file(str(Path(version_dir) / "tokenizer.json"))
        return cls(tokenizer, session, limits)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One request. Raises `InvalidInput`."""
        text, new_tokens = self._request(inputs)
        ids = self.tokenizer.encode(text).ids
        more = self.generate(ids, new_tokens).tokens
        return {
            "completion": np.array([self.tokenizer.decode(more).encode()], dtype=object),
            "nats": np.array([self.nats(ids)], dtype=np.float64),
            "tokens": np.array([len(ids)], dtype=np.int32),
        }

    def answer(self, requests: Sequence[Mapping[str, np.ndarray]]) -> list[Answer]:
        """Each request's outputs, or the `InvalidInput` it earned (returned, not raised)."""
        return [answer_alone(self, request) for request in requests]

    def nats(self, ids: Sequence[int]) -> float:
        """Negative log-likelihood of the tokens, the first at log(vocabulary)."""
        tokens = np.asarray(ids, dtype=np.int64)
        total = math.log(self.vocabulary)
        for window in windows(len(tokens), self.context, max(1, self.context // 2)):
            logits = self._logits(tokens[window.start : window.stop])[window.skip :]
            targets = tokens[window.start + 1 + window.skip : window.stop + 1]
            total += _cross_entropy(logits, targets)
        return total

    def generate(self, ids: Sequence[int], new_tokens: int) -> Continuation:
        """Take the likeliest token, again and again; the oldest tokens slide out of the context."""
        tokens, margins = list(ids), []
        for _ in range(new_tokens):
            logits = self._logits(np.asarray(tokens[-self.context :], dtype=np.int64))[-1]
            best = int(np.argmax(logits))
            second = np.partition(logits, -2)[-2]
            margins.append(float(logits[best] - second))
            tokens.append(best)
        return Continuation(tokens[len(ids) :], margins)

    def _logits(self, tokens: np.ndarray) -> np.ndarray:
        """int64 (T,) -> float32 (T, vocabulary)."""
        return self.session.run(["logits"], {"tokens": tokens[None, :]})[0][0]

    def _request(self, inputs: Mapping[str, np.ndarray]) -> tuple[str, int]:
        if set(inputs) != {"text", "max_new_tokens"}:
            raise InvalidInput(f"inputs must be text and max_new_tokens, not {sorted(inputs)}")
        raw, wanted = np.asarray(inputs["text"]), np.asarray(inputs["max_new_tokens"])
        if raw.dtype.kind not in "OSU" or raw.size != 1:
            raise InvalidInput(f"text must be one BYTES value, not {raw.dtype} {list(raw.shape)}")
        if wanted.dtype != np.int32 or wanted.size != 1:
            shape = list(wanted.shape)
            raise InvalidInput(f"max_new_tokens must be one INT32, not {wanted.dtype} {shape}")
        new_tokens = int(wanted.reshape(-1)[0])
        if not 0 <= new_tokens <= self.limits.max_new_tokens:
            limit = self.limits.max_new_tokens
            raise InvalidInput(f"max_new_tokens is {new_tokens}; it must be from 0 to {limit}")
        return self._text(raw.reshape(-1)[0]), new_tokens

    def _text(self, value: bytes | str) -> str:
        data = value.encode() if isinstance(value, str) else value
        if not isinstance(data, bytes):
            raise InvalidInput(f"text must be BYTES, not {type(data).__name__}")
        if not data:
            raise InvalidInput("text is empty; there is nothing to score or continue")
        if len(data) > self.limits.max_text_bytes:
            limit = self.limits.max_text_bytes
            raise InvalidInput(f"text has {len(data)} bytes; at most {limit} are taken")
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"text is not UTF-8 at byte {error.start}") from None


def _cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Summed nats of targets (T,) under float32 logits (T, V)."""
    top = logits.max(axis=1)
    log_sum = np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)) + top
    return float((log_sum - logits[np.arange(len(targets)), targets]).sum(dtype=np.float64))
