"""Count the bytes of every operator in the interpreter: `python -m kernels.bytes [OP ...]`.

The report runs this in a process of its own, because a process that interprets cannot compile.
"""

import json
import os
import sys
from functools import partial

os.environ["TRITON_INTERPRET"] = "1"

import torch

from kernels import settings
from kernels.interpreter import Meter, install
from kernels.workloads import WORKLOADS

# What every row shares and cache holds, and partial sums, which the formulas count per program.
APART = ("WEIGHT", "WEIGHT_SUM", "COS", "SIN", "Q_WEIGHT", "K_WEIGHT", "G", "DWEIGHT", "PARTIAL",
         "OUT")  # fmt: skip
ROWS = 2
ARCHES = ("sm_80", "sm_90", "sm_100")


def _always(arch: str, device: torch.device) -> str:
    return arch


def main(ops: list[str]) -> None:
    """{architecture: {operator: {size: bytes moved / the formula's minimum}}}, in bf16."""
    install()
    ratios: dict[str, dict[str, dict[int, float]]] = {}
    for arch in ARCHES:
        # the interpreter runs the settings of whichever architecture it is told
        settings.architecture = partial(_always, arch)
        for name in ops or WORKLOADS:
            work = WORKLOADS[name]
            for size in work.sizes:
                with Meter() as meter:
                    work.run(ROWS, size, torch.bfloat16, "cpu")
                ratio = meter.bytes(APART) / work.minimum(ROWS, size, 2)
                ratios.setdefault(arch, {}).setdefault(name, {})[size] = round(ratio, 4)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main(sys.argv[1:])
