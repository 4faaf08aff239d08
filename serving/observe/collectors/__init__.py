"""Read the site on a timer: Triton, journal and store, the edges' log; one snapshot of them all.

Imports serving.artifact, serving.triton and the fleet's journal and lease; changes nothing.
"""
