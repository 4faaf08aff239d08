"""From a run's candidate to a signed version: staging, gates, number, signature, store, report.

Imports conf, serving.artifact, serving.triton, the transform of serving.runtime and the reader of
the fleet's ledger, and never anything of a candidate.
"""
