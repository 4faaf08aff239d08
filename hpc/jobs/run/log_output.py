"""Output of a job's processes: standard output and the log lines of Lockgate, as plain text."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path


def redirect_output(path: Path) -> None:
    """Append what this process and its children write to the file `path`. Raises OSError."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def configure_logging() -> None:
    """Write the records of `hpc.*` loggers to standard output, the message alone on its line.

    Only Lockgate's own loggers: libraries keep their levels and handlers.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours = logging.getLogger("hpc")
    ours.handlers = [handler]
    ours.setLevel(logging.INFO)
    ours.propagate = False
