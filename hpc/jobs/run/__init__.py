"""The folder of a run: its name, its small files, its logs and its states.

Imports `spec` and serving.artifact; no scheduler.
"""
