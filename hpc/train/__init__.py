"""Training: the loop, its checkpoints, its ranks and what it tells about itself."""
