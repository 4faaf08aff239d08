"""The contract of both planes: a package's files, tensors, lineage, manifest, signature and store.

Imports of ours conf.schema only; numpy, pyarrow and Triton's client library only where arrays are handled.
"""
