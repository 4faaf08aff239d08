"""`srun python -m hpc.nodes SCRATCH SHARED LIMIT_S`: the checks of `lockgate doctor --nodes`.

One task on each node; each prints its node's report as a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from conf import LockgateError
from hpc.jobs.rank.rendezvous import this_rank
from hpc.nodes.preflight import NodeNeeds, check_node


def main(argv: Sequence[str]) -> int:
    """Check this node; 1 where it is not fit."""
    scratch, shared, limit_s = Path(argv[0]), Path(argv[1]), float(argv[2])
    rank = this_rank()
    os.environ.update(rank.variables())
    report = check_node(NodeNeeds(0, scratch, shared, limit_s), rank)
    print(json.dumps(asdict(report)), flush=True)
    return 1 if report.faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LockgateError as error:
        sys.exit(f"lockgate: {error}")
