"""`module`: any `torch.nn.Module` with tensors in and out, on an array dataset.

Imports what hpc.tasks may import, of the runtime arrays_model; and no other kind.
"""

from hpc.tasks.module.task import ModuleTask

__all__ = ["ModuleTask"]
