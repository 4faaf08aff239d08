"""`transformers`: a Hugging Face model that gives a text one of several labels."""

from hpc.tasks.transformers.task import TransformersTask

__all__ = ["TransformersTask"]
