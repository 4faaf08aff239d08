"""The local backend: a run's ranks as processes of this machine.

Imports `rank`, `run` and `spec`, and submitit's local executor; not the Slurm backend.
"""
