"""Training: the loop, its engine, checkpoints and ranks, and the report of a run."""
