"""`python -m kernels.bench`: time every operator on a GPU against torch eager, torch.compile and
Liger-Kernel, in microseconds and in per cent of the peak bandwidth that --peak (GB/s) states."""

import argparse

import torch

from kernels.rivals import RIVALS
from kernels.workloads import WORKLOADS


def main(argv: list[str] | None = None) -> int:
    """Print a line per operator, size and library; returns 1 and says why without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m kernels.bench")
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--peak", type=float, default=3350.0, help="peak bandwidth, GB/s (H100)")
    parser.add_argument("--op", choices=sorted(WORKLOADS), action="append")
    arguments = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("kernels.bench: no GPU here, so there is nothing to time; `python -m kernels.report` "
              "shows what can be known without one")  # fmt: skip
        return 1
    from triton.testing import do_bench

    from kernels.baselines import EAGER

    print("op  size  library  microseconds  % of peak bandwidth")
    for op in arguments.op or WORKLOADS:
        work = WORKLOADS[op]
        for size in work.sizes:
            rows = min(arguments.rows, (1 << 31) // size)
            least = work.minimum(rows, size, 2)
            runs = {"lockgate": work.run, "liger-kernel": RIVALS.get(op)}
            if op in EAGER:
                runs["torch eager"] = EAGER[op]
                runs["torch.compile"] = torch.compile(EAGER[op])
            for library, run in runs.items():
                if run is None:
                    continue
                ms = do_bench(lambda: run(rows, size, torch.bfloat16, "cuda"))  # noqa: B023
                share = 100 * least / (ms * 1e-3) / (arguments.peak * 1e9)
                print(f"{op}  {size}  {library}  {1000 * ms:.1f}  {share:.0f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
