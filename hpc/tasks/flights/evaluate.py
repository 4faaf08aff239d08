"""How good the flights model is on the validation split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn

from hpc.tasks.flights.data import read

BATCH = 8192


def evaluate(model: nn.Module, cfg: DictConfig, dataset: Path) -> dict[str, float]:
    """`auc`, `log_loss` (nats), `base_rate` and `base_log_loss` (always saying the base rate)."""
    table = read(dataset, "validation")
    chances = probabilities(model, table.categories, table.numbers)
    late = table.late.astype(np.float64)
    base = float(late.mean())
    return {
        "auc": auc(chances, late),
        "log_loss": log_loss(chances, late),
        "base_rate": base,
        "base_log_loss": log_loss(np.full(len(late), base), late),
    }


def probabilities(model: nn.Module, categories: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """float64 (rows,): the chance of each row to be late."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    parts = []
    with torch.no_grad():
        for start in range(0, len(categories), BATCH):
            rows = slice(start, start + BATCH)
            logits = model(
                torch.from_numpy(categories[rows]).to(device),
                torch.from_numpy(numbers[rows]).to(device),
            )
            parts.append(torch.sigmoid(logits.float()).cpu().numpy())
    model.train(was_training)
    return np.concatenate(parts).astype(np.float64)


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The chance that a positive scores above a negative, ties counting half (exact, by ranks).

    Raises ValueError without at least one of each.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if positives == 0 or negatives == 0:
        raise ValueError("AUC needs both late and punctual flights")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    above = ranks[positive.astype(bool)].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def log_loss(chances: np.ndarray, positive: np.ndarray) -> float:
    """Mean negative log-likelihood in nats; a certain and wrong answer costs about 16."""
    kept = np.clip(chances, 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(positive > 0, np.log(kept), np.log1p(-kept))))
