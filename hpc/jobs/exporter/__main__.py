"""`python -m hpc.jobs.exporter [key=value ...]`: the Slurm exporter."""

from __future__ import annotations

import sys

from hpc.jobs.exporter.server import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
