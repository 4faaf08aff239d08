"""The job's side of a run: the entry of every rank, its rendezvous, signals and exit codes."""
