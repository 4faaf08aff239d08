"""Bits per byte of text of a language model on the validation split."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn

from hpc.data.lineage import read_lineage
from hpc.tasks.dataset import read_transform
from hpc.tasks.text.data import read_tokens
from serving.runtime.windows import Window, windows

BATCH = 16


def evaluate(model: nn.Module, dataset: Path, context: int, eval_tokens: int) -> dict[str, float]:
    """`bits_per_byte` and `nats_per_token` of the validation split's first `eval_tokens` (0: all).

    The windows and the price of the first token (log of the vocabulary) are those of the served
    model's `nats`, so that this number and the gate's mean the same.
    """
    tokens, text_bytes = leading_tokens(dataset, "validation", eval_tokens)
    vocabulary = read_transform(dataset, "text", "TextTask")["vocab_size"]
    nats = math.log(vocabulary) + score(model, tokens, context, stride=max(1, context // 2))
    return text_metrics(nats, len(tokens), text_bytes)


def text_metrics(nats: float, tokens: int, text_bytes: int) -> dict[str, float]:
    """Of a text of so many tokens and bytes, whose negative log-likelihood is `nats`."""
    return {"bits_per_byte": nats / math.log(2) / text_bytes, "nats_per_token": nats / tokens}


def leading_tokens(dataset: Path, split: str, count: int) -> tuple[np.ndarray, int]:
    """The first `count` tokens of a split (all, if 0), and the bytes of their text."""
    tokens = read_tokens(dataset, split)
    if count == 0 or count >= len(tokens):
        return tokens, int(read_lineage(dataset).splits[split]["bytes"])
    tokenizer = Tokenizer.from_file(str(dataset / "tokenizer.json"))
    return tokens[:count], len(tokenizer.decode(tokens[:count].tolist()).encode())


def score(model: nn.Module, tokens: np.ndarray, context: int, stride: int) -> float:
    """Summed negative log-likelihood in nats of every token but the first."""
    was_training = model.training
    model.eval()
    total = 0.0
    with torch.no_grad():
        batch: list[Window] = []
        for window in windows(len(tokens), context, stride):
            if batch and window.stop - window.start != batch[0].stop - batch[0].start:
                total += _score_batch(model, tokens, batch)
                batch = []
            batch.append(window)
            if len(batch) == BATCH:
                total += _score_batch(model, tokens, batch)
                batch = []
        if batch:
            total += _score_batch(model, tokens, batch)
    model.train(was_training)
    return total


def _score_batch(model: nn.Module, tokens: np.ndarray, batch: list[Window]) -> float:
    """The windows of one batch all have the same length."""
    device = next(model.parameters()).device
    rows = np.stack([np.asarray(tokens[one.start : one.stop + 1]) for one in batch])
    ids = torch.from_numpy(rows.astype(np.int64)).to(device)
    logits = model(ids[:, :-1]).float()
    losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    scored = torch.zeros_like(losses)
    for row, window in enumerate(batch):
        scored[row, window.skip :] = 1
    return float((losses * scored).double().sum())
