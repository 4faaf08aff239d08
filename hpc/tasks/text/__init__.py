"""`text`: causal language modelling, the next token of a text, judged in bits per byte."""

from hpc.tasks.text.task import TextTask

__all__ = ["TextTask"]
