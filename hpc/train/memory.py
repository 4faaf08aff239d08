"""The peak memory of a rank's process, and its share of what the job asked for."""

from __future__ import annotations

import resource

import torch

from hpc.jobs.spec.config import ClusterConfig


def peak_memory(device: torch.device, cluster: ClusterConfig) -> dict[str, float]:
    """Columns of metrics.jsonl: `peak_rss_bytes`, `peak_rss_share`, `peak_gpu_bytes`.

    The share is that of the rank's part of `cluster.mem_gb`, which all ranks of a node divide; it
    is there only with such a request, and the last only on a GPU.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    columns: dict[str, float] = {"peak_rss_bytes": peak}
    if cluster.mem_gb is not None:
        asked = cluster.mem_gb * 2**30 / cluster.tasks_per_node
        columns["peak_rss_share"] = round(peak / asked, 4)
    if device.type == "cuda":
        columns["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(device)
    return columns
