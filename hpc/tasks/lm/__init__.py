"""Language modelling: the next token of the dictionary's text, judged in bits per byte."""

from hpc.tasks.lm.data import batches
from hpc.tasks.lm.evaluate import evaluate
from hpc.tasks.lm.export import export
from hpc.tasks.lm.network import loss, model

__all__ = ["batches", "evaluate", "export", "loss", "model"]
