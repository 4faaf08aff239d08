"""Choose the launch settings: `python -m kernels.tune` rewrites kernels/table.py.

For every (kernel, architecture, dtype, size) the candidates below are compiled, in the order in
which they are wanted, and the first is taken that spills nothing and, a row's scalars apart,
reaches memory in the hot code with accesses of 128 bits or more, whatever the operator's options.
No GPU is asked: what is compared is what the compiler says, and the order is the reasoning (enough
bytes in flight per thread, then as few warps as wait for each other at a barrier, clusters last).
Measure on a device with `python -m kernels.bench` and reorder here.

  --arch ARCH     only this architecture (may be repeated); the other rows stay
  --no-clusters   never let several thread blocks share a row (they have not run on a device yet)
"""

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product, repeat
from pathlib import Path

import torch

from kernels import settings
from kernels.ghost import Facts, Ghost, facts, occupancy
from kernels.settings import ANY, ARCHES, Launch
from kernels.workloads import HEAD, HIDDEN, WORKLOADS

# Multiprocessors: how many programs keep partial sums.
PROCESSORS = {"sm_80": 108, "sm_90": 132, "sm_100": 148, "gfx942": 304}
ROWS_IN_REGISTERS = (1024, 4096, 16384, 32768, 65536, 131072, 262144)
DTYPES = {"bf16": (torch.bfloat16, torch.float16), "fp32": (torch.float32,)}
HEADER = '''\
"""Launch settings by (kernel, architecture, dtype, size), from `python -m kernels.tune`."""

from kernels.settings import ANY, Launch

# fmt: off
# ruff: noqa: E501
TABLE = {
'''


def power(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << max(0, n - 1).bit_length()


def whole_rows(
    size: int, per_thread: tuple[int, ...], arch: str, clusters: bool
) -> Iterator[Launch]:
    """A row (or several short ones) in the registers of one program."""
    block = power(size)
    rows = max(1, 2048 // block)
    lanes, most = (64, 16) if arch == "gfx942" else (32, 32)
    seen = set()
    for elements in per_thread:
        warps = min(most, max(1, block * rows // (lanes * elements)))
        if warps not in seen:
            seen.add(warps)
            yield Launch(block, rows, warps=warps)
    for ctas in _clusters(arch, clusters):
        for elements in per_thread:
            warps = min(most, max(4, block // (lanes * elements * ctas)))
            yield Launch(block, 1, warps=warps, ctas=ctas)


def _clusters(arch: str, wanted: bool) -> tuple[int, ...]:
    return (2, 4, 8) if wanted and arch in ("sm_90", "sm_100") else ()


def kept_in_vectors(size: int, vector: int, arch: str, clusters: bool) -> Iterator[Launch]:
    """A row as a few vectors (of `vector` elements) in every thread."""
    lanes, most = (64, 16) if arch == "gfx942" else (32, 32)
    for ctas in (1, *_clusters(arch, clusters)):
        for parts in (4, 8):
            warps = max(1, power(size) // (parts * vector * lanes * ctas))
            if warps <= most:
                yield Launch(vector * lanes * warps * ctas, warps=warps, ctas=ctas)


def candidates(kernel: str, arch: str, dtype: str, size: int, clusters: bool) -> Iterator[Launch]:
    """Settings worth compiling, the most wanted first."""
    warps = 2 if arch == "gfx942" else 4
    if kernel.endswith("rms_norm_fwd"):
        yield from whole_rows(size, (16, 8, 32), arch, clusters)
    elif kernel.endswith("rms_norm_bwd"):
        yield from whole_rows(size, (16, 8, 32), arch, clusters)
        for tile, many in ((8192, 32), (4096, 16), (4096, 32), (2048, 16), (2048, 8)):
            yield Launch(tile, warps=many if arch != "gfx942" else many // 2, reads=2)
    elif kernel in ("rope", "rope_norm_bwd"):
        half = power(size // 2)
        for tile in (1024, 2048, 512):
            yield Launch(half, max(1, tile // half), warps=warps)
            yield Launch(half, max(1, tile // half), warps=max(1, warps // 2))
    elif kernel.startswith("glu"):
        yield from (Launch(block, warps=warps) for block in (2048, 1024))
    elif kernel == "column_sum":
        yield from (Launch(128, 32, warps=warps), Launch(128, 16, warps=warps))
    elif kernel == "linear_cross_entropy":
        yield from kept_in_vectors(size, 8 if dtype == "bf16" else 4, arch, clusters)
        yield from _tiles(arch, reads=2)
    else:
        yield from _tiles(arch, reads=2 if kernel.endswith("streamed") else 1)


def _tiles(arch: str, reads: int) -> Iterator[Launch]:
    for block, warps in ((4096, 8), (8192, 16), (2048, 4), (2048, 8)):
        yield Launch(block, warps=warps // 2 if arch == "gfx942" else warps, reads=reads)


def complaint(found: list[Facts], narrow: int = 0) -> str:
    """Why compiled kernels cannot be shipped, or nothing. narrow: how many of their hot accesses
    may be of less than 128 bits."""
    if spills := sum(f.spills for f in found):
        return f"{spills} spills"
    if (too_narrow := sum(f.narrow for f in found)) > narrow:
        return f"{too_narrow} narrow accesses"
    if not all(max(f.hot_loads, default=0) >= 128 for f in found):
        return "no 128-bit loads"
    return ""


def rehearse(
    workload: str, arch: str, dtype: torch.dtype, size: int, trial: Launch | None
) -> Iterator[list[Facts]]:
    """Compile each variant of a workload, with its kernel's setting replaced by `trial` if one is
    given, and yield the facts of what it launches."""
    work = WORKLOADS[workload]
    if trial is not None:
        settings._trial = {
            work.kernel: replace(trial, programs=132),
            "column_sum": trial if work.kernel == "column_sum" else Launch(128, 32, warps=4),
        }
    try:
        for run in (work.run, *work.variants):
            with Ghost(arch) as gpu:
                run(1000, size, dtype, "meta")
            yield [facts(launched.kernel) for launched in gpu.launches]
    finally:
        settings._trial = {}


def choose(arch: str, dtype: str, workloads: list[str], size: int, clusters: bool) -> Launch:
    """The first candidate that suits all of `workloads`, which launch one kernel, in every type
    that the table calls `dtype` and, of a vocabulary, at an odd size too."""
    kernel = WORKLOADS[workloads[0]].kernel
    probe = {"glu_fwd": 11008, "glu_bwd": 11008}.get(kernel, 131072) if size == ANY else size
    probes = (probe, probe - 1) if "cross_entropy" in kernel else (probe,)
    rejected: dict[str, str] = {}
    for trial in candidates(kernel, arch, dtype, probe, clusters):
        label = f"{trial.warps} warps x {trial.ctas} of {trial.block}"
        first, why = None, ""
        for work, kind, at in product(workloads, DTYPES[dtype], probes):
            for found in rehearse(work, arch, kind, at, trial):
                first = first or found[0]
                # AMD's assembly is not searched for loops, so widths are not judged there
                narrow = WORKLOADS[work].narrow * trial.rows if arch != "gfx942" else 1 << 20
                why = why or complaint(found, narrow)
            if why:
                break
        if first is not None and not why:
            blocks = occupancy(first.registers, first.shared, trial.warps, arch)
            programs = PROCESSORS[arch] * min(blocks, 2) // trial.ctas
            note = f"0 spills, {first.registers} registers, {blocks} blocks a multiprocessor"
            if rejected:
                note += "; not " + ", ".join(f"{what}: {that}" for what, that in rejected.items())
            keeps = kernel.endswith("rms_norm_bwd")
            return replace(trial, programs=programs if keeps else 0, why=note)
        rejected[label] = why
    raise SystemExit(f"kernels.tune: nothing fits {kernel} on {arch} {dtype} {size}: {rejected}")


def plan() -> list[tuple[list[str], int]]:
    """Every (workloads of one kernel, size) that needs a row per architecture and dtype."""
    rows: list[tuple[list[str], int]] = []
    for name in ("rms_norm_fwd", "rms_norm_bwd", "add_rms_norm_fwd", "add_rms_norm_bwd"):
        rows += [([name], n) for n in (128, 512, *HIDDEN)]
    rows += [(["rope", "rope_norm_fwd"], d) for d in (32, *HEAD)]
    rows += [(["rope_norm_bwd"], d) for d in (32, *HEAD)]
    rows += [(["swiglu_fwd", "geglu_fwd"], ANY), (["swiglu_bwd", "geglu_bwd"], ANY)]
    rows += [(["cross_entropy_fwd"], ANY), (["cross_entropy_bwd"], ANY)]
    rows += [(["linear_cross_entropy"], v) for v in ROWS_IN_REGISTERS]
    rows += [(["linear_cross_entropy_weighted"], ANY)]
    return rows


def written() -> dict[tuple[str, str, str, int], Launch]:
    """The rows of the table as it is; none when there is no table yet."""
    try:
        from kernels.table import TABLE
    except ImportError:
        return {}
    return dict(TABLE)


def write(rows: dict[tuple[str, str, str, int], Launch]) -> None:
    """Replace kernels/table.py in one step."""
    lines = []
    for (kernel, arch, dtype, size), setting in rows.items():
        label = "ANY" if size == ANY else str(size)
        lines.append(f"    ({kernel!r}, {arch!r}, {dtype!r}, {label}): {setting!r},\n")
    path = Path(__file__).with_name("table.py")
    fresh = path.with_suffix(".new")
    fresh.write_text(HEADER + "".join(lines).replace("'", '"') + "}\n")
    fresh.rename(path)


def main(argv: list[str] | None = None) -> None:
    """Choose anew for the architectures asked for; prints each row as it is chosen."""
    parser = argparse.ArgumentParser(prog="python -m kernels.tune", description=__doc__)
    parser.add_argument("--no-clusters", action="store_true")
    parser.add_argument("--arch", choices=ARCHES, action="append")
    arguments = parser.parse_args(argv)
    arches = arguments.arch or ARCHES
    rows = {key: setting for key, setting in written().items() if key[1] not in arches}
    wanted = [(arch, dtype, *row) for arch in arches for dtype in DTYPES for row in plan()]
    with ProcessPoolExecutor() as pool:
        chosen = pool.map(choose, *zip(*wanted, strict=True), repeat(not arguments.no_clusters))
        for (arch, dtype, workloads, size), setting in zip(wanted, chosen, strict=True):
            rows[WORKLOADS[workloads[0]].kernel, arch, dtype, size] = setting
            print(arch, dtype, workloads[0], size, setting, flush=True)
    for arch, dtype in product(arches, DTYPES):
        why = "a tile of 32 partial sums, 16 elements a thread"
        rows["column_sum", arch, dtype, ANY] = Launch(128, 32, warps=4, why=why)
    write(rows)


if __name__ == "__main__":
    main()
