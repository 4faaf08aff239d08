"""Choose the launch configs: `python -m kernels.analysis.tune` rewrites kernels/launch/table.py.

For every (kernel, architecture, dtype, size) the candidates of its operator's file in
kernels/analysis/cases are compiled, in the order in which they are wanted, and the first is taken
that spills nothing and, a row's scalars apart, reaches memory in the hot code with accesses of 128
bits or more, whatever the operator's options. No GPU is used: the compiler's output is compared,
and the order is the reasoning. Measure on a device with `python -m kernels.analysis.bench` and
reorder in kernels/analysis/candidates.py.

  --arch ARCH     only this architecture (may be repeated); the other rows stay
  --no-clusters   never let several thread blocks share a row (they have not run on a device yet)
"""

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product, repeat
from pathlib import Path

import torch

from kernels.analysis.case import TableRows
from kernels.analysis.cases import TABLE_ROWS, WORKLOADS
from kernels.analysis.compiler_facts import CompilerFacts, compiler_facts, occupancy
from kernels.analysis.fake_driver import FakeDriver
from kernels.launch import table
from kernels.launch.config import ANY, ARCHES, LaunchConfig, trial_configs

# Multiprocessors: a bound on the programs that keep partial sums.
PROCESSORS = {"sm_80": 108, "sm_90": 132, "sm_100": 148, "gfx942": 304}
DTYPES = {"bf16": (torch.bfloat16, torch.float16), "fp32": (torch.float32,)}
COLUMN_SUM = LaunchConfig(
    128, 32, warps=4, why="a tile of 32 partial sums, 16 elements a thread"
)  # fmt: skip
HEADER = '''\
"""Launch configs by (kernel, architecture, dtype, size), from `python -m kernels.analysis.tune`."""

from kernels.launch.config import ANY, LaunchConfig

# fmt: off
# ruff: noqa: E501
TABLE = {
'''

Key = tuple[str, str, str, int]  # kernel, architecture, dtype, size


def rejection_reason(found: list[CompilerFacts], narrow: int = 0) -> str:
    """The reason why compiled kernels cannot be shipped, or "". narrow: hot accesses that may be of
    less than 128 bits."""
    if spills := sum(f.spills for f in found):
        return f"{spills} spills"
    if (too_narrow := sum(f.narrow for f in found)) > narrow:
        return f"{too_narrow} narrow accesses"
    if not all(max(f.hot_loads, default=0) >= 128 for f in found):
        return "no 128-bit loads"
    return ""


def compile_candidate(
    workload: str, arch: str, dtype: torch.dtype, size: int, trial: LaunchConfig | None
) -> Iterator[list[CompilerFacts]]:
    """Compile each variant of a workload and yield the facts of its launches.

    trial: the config of the workload's kernel in place of the table's, if any.
    """
    work = WORKLOADS[workload]
    tried: dict[str, LaunchConfig] = {}
    if trial is not None:  # the number of programs changes no binary
        tried = {work.kernel: replace(trial, programs=132), "column_sum": COLUMN_SUM}
    with trial_configs(tried):
        for run in (work.run, *work.variants):
            with FakeDriver(arch) as gpu:
                run(1000, size, dtype, "meta")
            yield [compiler_facts(launched.kernel) for launched in gpu.launches]


def choose_config(
    rows: TableRows, arch: str, dtype: str, size: int, clusters: bool
) -> LaunchConfig:
    """The first candidate that suits all workloads of `rows`, in every type that the table calls
    `dtype`.

    Raises SystemExit when no candidate does.
    """
    kernel = WORKLOADS[rows.workloads[0]].kernel
    probe = rows.probe if size == ANY else size
    probes = (probe, probe - 1) if rows.odd else (probe,)
    rejected: dict[str, str] = {}
    for trial in rows.candidates(arch, dtype, probe, clusters):
        label = f"{trial.warps} warps x {trial.ctas} of {trial.block}"
        first, why = None, ""
        for work, kind, at in product(rows.workloads, DTYPES[dtype], probes):
            for found in compile_candidate(work, arch, kind, at, trial):
                first = first or found[0]
                # AMD's assembly is not searched for loops, so widths are not judged there
                narrow = WORKLOADS[work].narrow * trial.rows if arch != "gfx942" else 1 << 20
                why = why or rejection_reason(found, narrow)
            if why:
                break
        if first is not None and not why:
            blocks = occupancy(first.registers, first.shared, trial.warps, arch)
            programs = PROCESSORS[arch] * min(blocks, 2) // trial.ctas
            note = f"0 spills, {first.registers} registers, {blocks} blocks a multiprocessor"
            if rejected:
                note += "; not " + ", ".join(f"{what}: {that}" for what, that in rejected.items())
            return replace(trial, programs=programs if rows.keeps_sums else 0, why=note)
        rejected[label] = why
    raise SystemExit(
        f"kernels.analysis.tune: nothing fits {kernel} on {arch} {dtype} {size}: {rejected}; add a "
        "candidate to its TableRows in kernels/analysis/cases"
    )


def planned_rows() -> list[tuple[TableRows, int]]:
    """Every (rows, size) that needs a config per architecture and dtype."""
    return [(rows, size) for rows in TABLE_ROWS for size in rows.sizes]


def write_table(rows: dict[Key, LaunchConfig]) -> None:
    """Replace kernels/launch/table.py in one step, the rows in their order."""
    lines = []
    for (kernel, arch, dtype, size), config in rows.items():
        label = "ANY" if size == ANY else str(size)
        lines.append(f"    ({kernel!r}, {arch!r}, {dtype!r}, {label}): {config!r},\n")
    path = Path(table.__file__)
    fresh = path.with_suffix(".new")
    text = HEADER + "".join(lines).replace("'", '"') + "}\n"
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def main(argv: list[str] | None = None) -> None:
    """Choose anew for the wanted architectures; rows that stay keep their place in the table."""
    parser = argparse.ArgumentParser(
        prog="python -m kernels.analysis.tune", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--no-clusters", action="store_true")
    parser.add_argument("--arch", choices=ARCHES, action="append")
    arguments = parser.parse_args(argv)
    arches = arguments.arch or ARCHES
    wanted = [
        (rows, arch, dtype, size)
        for arch in arches
        for dtype in DTYPES
        for rows, size in planned_rows()
    ]
    chosen: dict[Key, LaunchConfig] = {}
    with ProcessPoolExecutor() as pool:
        configs = pool.map(
            choose_config, *zip(*wanted, strict=True), repeat(not arguments.no_clusters)
        )
        for (rows, arch, dtype, size), config in zip(wanted, configs, strict=True):
            kernel = WORKLOADS[rows.workloads[0]].kernel
            chosen[kernel, arch, dtype, size] = config
            sys.stdout.write(f"{arch} {dtype} {kernel} {size} {config}\n")
            sys.stdout.flush()
    for arch, dtype in product(arches, DTYPES):
        chosen["column_sum", arch, dtype, ANY] = COLUMN_SUM
    kept = {key: row for key, row in table.TABLE.items() if key[1] not in arches or key in chosen}
    write_table({**kept, **chosen})


if __name__ == "__main__":
    main()
