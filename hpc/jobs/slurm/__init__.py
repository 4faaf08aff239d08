"""The Slurm backend: batch scripts, Slurm's commands and its records of jobs.

Imports `rank`, `run` and `spec`, and submitit; not the local backend.
"""
