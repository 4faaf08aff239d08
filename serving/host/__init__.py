"""The programs of a serving host: a deployment's verbs, verification, the start of Triton.

Imports serving.artifact.verify and durable, serving.triton's client and model configs, conf.errors
and names: the few files that are installed with it, root's, on each host (`installation`).
"""
