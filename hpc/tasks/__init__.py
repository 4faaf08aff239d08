"""Tasks: what is learned from which dataset, and how it is served. One folder per kind.

The interface is `hpc.tasks.task.Task`; a YAML names a kind or a task of one's own by `_target_`:

    task:
      _target_: hpc.tasks.tabular.TabularTask  # or .text.TextTask, .module.ModuleTask, ...

A kind's `task.py` imports no torch before its methods are called. Nothing here imports `hpc.train`.
"""
