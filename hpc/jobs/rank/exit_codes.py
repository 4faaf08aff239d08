"""Exit codes of a training job, as sacct shows them."""

from __future__ import annotations

TRAINING_FAILED = 1
REFUSED = 3  # the spec, the snapshot or the dataset is not what was frozen
TOO_OFTEN = 4  # stopped at its time limit more than cluster.max_requeues times
TERMINATED = 143  # saved after SIGTERM; the scheduler decides whether it goes on
REQUEUE = 75  # saved, and wants to go on later; the batch script requeues the job
REQUEUE_LOCAL = 144  # the same, as submitit's local executor understands it
