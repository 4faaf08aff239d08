"""The code that rides inside a package: what training and serving must agree on, defined once.

Imports the standard library, numpy, onnxruntime and tokenizers, and within itself only relatively:
a package carries a copy of the files its kind of model needs, as `lockgate_runtime`.
"""
