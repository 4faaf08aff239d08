"""`transformers`: a Hugging Face model that gives a text one of several labels.

Imports what hpc.tasks may import, of the runtime text_classifier; and no other kind.
"""

from hpc.tasks.transformers.task import TransformersTask

__all__ = ["TransformersTask"]
