"""The answer of `lockgate why`: what a run waits for, or the first cause of its bad end.

Imports `cause`, the queue, the Slurm backend's commands, `run` and `spec`. The text of Slurm's
commands and of logs is read by pure functions; `wait` and `ended` alone run commands and open
files.
"""
