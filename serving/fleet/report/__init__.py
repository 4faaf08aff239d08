"""Rollouts as people read them afterwards: records from the journal, and one HTML page for each.

Reads the journal, the ledger and Prometheus; changes nothing. It imports serving.fleet.rollout,
serving.fleet.routing, serving.artifact and conf.
"""
