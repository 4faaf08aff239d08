"""The contract of both planes: a package's files, tensors, lineage, manifest, signature and store.

Of ours it imports conf.errors, conf.schema and serving.runtime.package; numpy, pyarrow and
tritonclient only where arrays are handled.
"""
