"""The programs of a serving host: a deployment's verbs, verification, the start of Triton.

Installed root-owned on each host with the few files of ours that they import (`installation`): of
ours serving.artifact.verify and durable, serving.triton's client and model configs, conf.errors.
"""
