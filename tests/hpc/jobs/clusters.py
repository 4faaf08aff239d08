"""A small Slurm cluster's settings, for tests that change some of them."""

from __future__ import annotations

from typing import Any

from hpc.jobs.spec.config import ClusterConfig


def slurm_cluster(**changes: Any) -> ClusterConfig:
    """One rank on one node; everything that a cluster may decide is left to it."""
    settings: dict[str, Any] = {
        "kind": "slurm", "partition": None, "account": None, "qos": None, "nodes": 1,
        "tasks_per_node": 1, "gpus_per_node": 0, "cpus_per_task": 1, "mem_gb": None,
        "timeout_min": 60, "signal_delay_s": 90, "max_requeues": 8, "exclude": None,
        "slurm_conf": None, "scratch": "/tmp", "pass_environment": [], "additional_parameters": {},
    }  # fmt: skip
    return ClusterConfig(**{**settings, **changes})
