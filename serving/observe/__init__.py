"""Prometheus' side of a site: scrape and alert configuration, the release and edge exporter.

Nothing here changes the fleet: hosts, edges, journal and store are read, on timers, with limits.
Imports conf, serving.artifact, serving.triton and the fleet's journal and lease.
"""
