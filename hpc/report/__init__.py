"""`lockgate report`: runs as one HTML page, whole in itself, of what their folders hold.

`reported_run` reads; everything else is pure. Imports conf, hpc.jobs and serving.artifact; no
training loop and no heavy library.
"""
