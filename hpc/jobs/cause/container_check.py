"""`python -m hpc.jobs.cause.container_check FOLDER ATTEMPT`: the image before an attempt's ranks.

The batch script runs it outside of the container. An image that is not the frozen one ends the run,
as a changed dataset does; 0 where the ranks may begin.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from conf.modes import share_new_files
from hpc.jobs.cause.attempt_end import end_attempt
from hpc.jobs.errors import SpecChanged
from hpc.jobs.rank.exit_codes import REFUSED
from hpc.jobs.run.files import FailureFile, RankFailure, utc_now, write_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.spec.config import cluster_config
from hpc.jobs.spec.container_image import changed_image


def main(argv: Sequence[str]) -> int:
    """Run the program; the job's exit code where the attempt is over before it began."""
    folder, attempt = argv
    share_new_files()
    run = Run(Path(folder).resolve())
    try:
        spec = run.spec
    except SpecChanged:
        return 0  # each rank refuses it, with the reason
    if spec.container is None:
        return 0
    fault = changed_image(spec.container, cluster_config(spec.config))
    if not fault:
        return 0
    sentence = f"{fault}. Nothing was run; submit again to train in the image as it is now."
    print(f"lockgate: {sentence}", file=sys.stderr)
    failure = RankFailure(SpecChanged.__name__, sentence, None)
    write_run_file(run.failure, FailureFile(int(attempt), utc_now(), failure, run=run.name))
    return end_attempt(run, int(attempt), REFUSED).exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
