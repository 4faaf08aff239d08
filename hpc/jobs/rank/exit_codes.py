"""Exit codes of a training job, as sacct shows them."""

from __future__ import annotations

TRAINING_FAILED = 1
REFUSED = 3  # the spec, the snapshot or the dataset is not what was frozen
TOO_OFTEN = 4  # more attempts without a newer checkpoint than cluster.max_requeues allows
TERMINATED = 143  # saved after SIGTERM; the scheduler decides whether it goes on
REQUEUE = 75  # wants to go on later; the batch script requeues the job
LOST_RANK = 76  # of one rank: another one is gone; the end of the attempt decides what follows
HANG = 77  # of one rank: no step for hang_timeout_s; the end of the attempt decides what follows
