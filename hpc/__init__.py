"""The training plane: the command line, jobs on Slurm, data, models, and the training loop."""
