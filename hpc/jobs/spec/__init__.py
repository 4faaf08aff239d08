"""The frozen description of a run: its checked config, its code and its environment.

Imports conf, hpc.tasks, hpc.optim, hpc.data and serving.artifact; no other room of jobs.
"""
