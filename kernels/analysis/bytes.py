"""Count the bytes of launchers in the interpreter:
`python -m kernels.analysis.bytes --arch ARCH --op OP`, each as often as wanted, everything without
them.

The report runs this in a process of its own, because a process that interprets cannot compile. It
writes a line of JSON for each row: library, op, arch, size, bytes_ratio (bytes that the kernels
loaded and stored over the formula's minimum, in bf16), issued_ratio (the same with the vectors that
all rows share and the partial sums), or bytes_error where a launcher cannot be interpreted.
The part that a launcher leaves to torch (matrix products, Liger's sums of partial results) is not
counted, for either library.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

os.environ["TRITON_INTERPRET"] = "1"

import torch

from kernels.analysis import liger
from kernels.analysis.case import LigerLaunch, Workload
from kernels.analysis.cases import LIGER, WORKLOADS
from kernels.analysis.interpreter import Meter, install
from kernels.launch import config

ROWS = 2


def bytes_ratio(work: Workload, size: int, launcher: Workload | LigerLaunch) -> dict[str, Any]:
    """bytes_ratio and issued_ratio of one launcher of `work`, or the bytes_error that kept it from
    being counted."""
    try:
        with Meter() as meter:
            launcher.run(ROWS, size, torch.bfloat16, "cpu")
    except Exception as error:  # noqa: BLE001  whatever it was is the row
        return {"bytes_error": f"{type(error).__name__}: {error}"[:200]}
    least = work.minimum(ROWS, size, 2)
    return {
        "bytes_ratio": round(meter.bytes(launcher.excluded_args) / least, 4),
        "issued_ratio": round(meter.bytes() / least, 4),
    }


def bytes_rows(
    ops: Sequence[str], arches: Sequence[str] = config.ARCHES
) -> Iterator[dict[str, Any]]:
    """A row per architecture, operator, size and library."""
    beside = LIGER if liger.installed_version() else {}
    for arch in arches:
        for op in ops:
            work = WORKLOADS[op]
            for size in work.sizes:
                place = {"op": op, "arch": arch, "size": size}
                # the interpreter runs the configs of sm_90 unless another is put in its place
                with mock.patch.object(config, "architecture", return_value=arch):
                    found = bytes_ratio(work, size, work)
                yield {"library": "lockgate", **place, **found}
                if op in beside:
                    with liger.interpretable(), liger.device_of(arch):
                        found = bytes_ratio(work, size, beside[op])
                    yield {"library": liger.NAME, **place, **found}


def main() -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(prog="python -m kernels.analysis.bytes", description=__doc__)
    parser.add_argument("--arch", choices=config.ARCHES, action="append")
    parser.add_argument("--op", choices=sorted(WORKLOADS), action="append")
    wanted = parser.parse_args()
    install()
    for row in bytes_rows(wanted.op or list(WORKLOADS), wanted.arch or config.ARCHES):
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
