"""The Slurm backend: batch scripts, Slurm's commands and its records of jobs."""
