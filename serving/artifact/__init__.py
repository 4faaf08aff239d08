"""The contract of both planes: a package's files, tensors, lineage, manifest, signature and store.

Imports nothing of ours; numpy, pyarrow and Triton's client library only where arrays are handled.
"""
