"""Training: the loop, its engine, checkpoints and ranks, and the report of a run.

Imports torch, DeepSpeed, hpc.tasks, hpc.optim and, of jobs, the spec and the run's folder.
"""
