"""Training: the loop, its checkpoints, its ranks, its metrics and what is reported of it.

Imports conf, hpc.tasks, kernels and serving.artifact; DeepSpeed and MLflow are used here alone.
"""
