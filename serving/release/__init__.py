"""From a run's candidate to a signed version: staging, gates, number, signature, store, report.

Imports conf, serving.artifact, serving.triton and the transform of serving.runtime, and never
anything of a candidate.
"""
