"""`tabular`: a table of categories and numbers; binary, multi-class or regression target.

Imports what hpc.tasks may import, of the runtime tabular_model; and no other kind.
"""

from hpc.tasks.tabular.task import TabularTask

__all__ = ["TabularTask"]
