"""Jobs: freezing a run at submit, sending it to a backend, and finding its state.

Rooms: `spec`, `run`, `slurm`, `local`, `rank`, `exporter`. Imports conf, hpc.tasks, hpc.optim,
hpc.data and serving.artifact; of hpc.train only the loop, and only in the main of a rank.
"""
