"""`tabular`: a table of categories and numbers; binary, multi-class or regression target."""

from hpc.tasks.tabular.task import TabularTask

__all__ = ["TabularTask"]
