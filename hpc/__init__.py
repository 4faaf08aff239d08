"""The training plane: the command line, jobs on Slurm, data, models, and the training loop.

Imports conf, kernels, serving.artifact, serving.runtime and serving.triton; the command line alone
imports serving.release.
"""
