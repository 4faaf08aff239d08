"""`text`: causal language modelling, the next token of a text, measured in bits per byte.

Imports what hpc.tasks may import, of the runtime text_model; and no other kind.
"""

from hpc.tasks.text.task import TextTask

__all__ = ["TextTask"]
