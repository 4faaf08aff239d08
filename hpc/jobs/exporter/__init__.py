"""The Slurm exporter: polls of the queue, served to Prometheus."""
