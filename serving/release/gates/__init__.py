"""Lockgate's own gates, a file each: a frozen dataclass that a YAML in conf/gates names.

A gate of one's own is one such file anywhere and an entry in a YAML; nothing here lists them.
Imports serving.artifact, serving.triton and what stands beside this folder, never a candidate.
"""
