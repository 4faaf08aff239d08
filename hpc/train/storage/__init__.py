"""Copies of checkpoints away from the run's folder: a folder elsewhere, or an object store.

<store>/<run>/<step>/<files of the checkpoint>   manifest.json is written last and makes it visible

Imports what hpc.train imports, and fsspec for object stores.
"""
