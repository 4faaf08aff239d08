"""`module`: any `torch.nn.Module` with tensors in and out, on an array dataset."""

from hpc.tasks.module.task import ModuleTask

__all__ = ["ModuleTask"]
