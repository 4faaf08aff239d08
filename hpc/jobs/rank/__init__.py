"""The job's side of a run: the entry of every rank, its rendezvous, signals and exit codes.

Imports `run` and `spec`, and from its main the training loop; no backend.
"""
