"""The programs of a serving host: a deployment's verbs, verification, golden questions, a start.

Imports serving.artifact.verify, durable and golden, serving.triton's clients and model configs,
conf.errors and names: the few files that are installed with it, root's, on each host
(`installation`).
"""
