"""The Slurm exporter: polls of the queue, served to Prometheus.

Imports the backends and the run's folder; prometheus_client and no torch.
"""
