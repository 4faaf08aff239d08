"""Jobs: what is frozen at submit (spec, snapshot), how it is sent, and where it stands.

Imports conf, hpc.data, hpc.models, hpc.tasks and serving.artifact; no torch before a rank starts.
"""
