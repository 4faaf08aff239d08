"""The programs of an edge's own machine: a rollout's commands to its HAProxy, checked here.

Stands alone: imports artifact.durable and nothing else of ours, so that it can be copied there.
Beside it `serving.observe.edge_exporter` shows HAProxy's request log there to the site's Prometheus
(`installation.edge_log_command`).
"""
