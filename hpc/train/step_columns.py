"""The measured columns of a step's line in metrics.jsonl, and their names for Prometheus.

`data_wait_seconds`, `forward_seconds`, `backward_seconds`, `optimizer_seconds` and, on a CPU,
`communication_seconds` are means over the steps since the line before; `gradient_norm` is that of
the last step, before clipping; `peak_*` are of the process since its start; `mfu` is a share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpc.jobs.spec.config import ClusterConfig
from hpc.train.distributed import World
from hpc.train.memory import peak_memory
from hpc.train.step import gradient_norm
from hpc.train.step_account import StepAccount, columns
from hpc.train.utilization import peak_flops, utilization


@dataclass(frozen=True)
class StepColumns:
    """Columns of the steps of one attempt, read from rank 0's account, engine and process."""

    account: StepAccount
    model: Any  # the DeepSpeed engine
    world: World
    cluster: ClusterConfig

    def take(self, units_per_second: float) -> dict[str, float]:
        """The columns of the steps since the last call; none for what this run does not measure."""
        taken = columns(self.account.take())
        norm = gradient_norm(self.model)
        if norm is not None:
            taken["gradient_norm"] = norm
        taken |= peak_memory(self.world.device, self.cluster)
        peak = peak_flops(self.world.device, self.model.bfloat16_enabled())
        share = utilization(self.model.module, units_per_second, peak, self.world.size)
        if share is not None:
            taken["mfu"] = round(share, 4)
        return taken
