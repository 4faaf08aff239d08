"""Report of every operator as compiled, at every shipped size, in bf16, beside Liger-Kernel:
`python -m kernels.analysis.report [--json] [--html FILE] [--records DIR] [--arch ARCH] [--op OP]`.
No GPU is needed, and times are not part of it. Progress goes to stderr, the report to stdout, and
with --html as a page to FILE. --records writes each operator and its workloads to DIR in the file
form of FlashInfer-Bench, see kernels/analysis/records.py.

A row: library (Liger's version beside it), op, arch, size (of a row: hidden, head or vocabulary),
  registers     of a thread, the most of the launcher's kernels
  spills        instructions that reach local memory, all kernels together
  shared        bytes of shared memory, the most of the kernels
  hot_loads     accesses by width in bits, in the innermost loops or, without a loop, everywhere
  hot_stores    the same for stores
  bytes_ratio   bytes that the kernels moved over the formula's minimum, counted in the interpreter
                with the architecture's configs, without shared vectors and partial sums
  issued_ratio  the same with them, of 2 rows: RMSNorm's backward reads its weight twice a row, from
                cache, and partial sums weigh more than they will
  binaries      that the same op, dtype and size need over the variations below, of the kernel
                that needs most; binaries_by has the number by variation
linear_cross_entropy has, for 8192 tokens of 4096 in bf16 on a GPU, also
  chunk_tokens  tokens whose logits are held at a time; chunk_mib, their size
  moved_gib     moved by products and row kernel together, 2 bytes an element and 4 of dW
  weight_share  the part of it that is the output layer and its gradient, read for every chunk
Where a launcher fails there is `error` instead, where only its bytes could not be counted
`bytes_error`. Variations: "rows" 1, 2, 16, 17, 1000, 4096; "batch" 1, 2, 3, 4, 8, 16 (rotations);
"ignored" targets 0, 1, 16 and all but one, "smoothing" 0, 0.1, 0.2, 0.3, 0.4 (losses).

Liger's cross entropy makes loss and gradient in one kernel: it stands beside linear_cross_entropy.
Liger has nothing of the kind of cross_entropy_fwd and _bwd, rope_norm_fwd and _bwd.

Exit: 0; 1 when a launcher of this package failed, or an operator lacks a form (forms.py); 2 for
wrong arguments; 130 when interrupted.
"""

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import triton
from rich.console import Console
from rich.table import Table

from kernels.analysis import liger, quack
from kernels.analysis.case import LigerLaunch, Workload
from kernels.analysis.cases import BENCH_CASES, LIGER, WORKLOADS
from kernels.analysis.compiler_facts import compiler_facts
from kernels.analysis.fake_driver import FakeDriver
from kernels.analysis.forms import missing_forms
from kernels.analysis.page import OURS, ReportRun, report_page
from kernels.analysis.progress import progress
from kernels.analysis.records import recorded_operators, write_records
from kernels.analysis.tune import PROCESSORS
from kernels.launch.config import ARCHES

ROWS = 4096
VARIATIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "rows": tuple({"m": rows} for rows in (1, 2, 16, 17, 1000, 4096)),
    "batch": tuple({"m": 64, "batch": batch} for batch in (1, 2, 3, 4, 8, 16)),
    "ignored": tuple({"ignored": count} for count in (0, 1, 16, ROWS - 1)),
    "smoothing": tuple({"smoothing": share} for share in (0.0, 0.1, 0.2, 0.3, 0.4)),
}
COLUMNS = {
    "op": "op", "arch": "arch", "size": "size", "library": "library", "registers": "regs",
    "spills": "spills", "shared": "shared", "hot_loads": "loads", "hot_stores": "stores",
    "bytes_ratio": "bytes", "issued_ratio": "issued", "binaries": "binaries",
}  # fmt: skip


def binaries(
    arch: str, op: str, size: int, launcher: Workload | LigerLaunch
) -> tuple[int, dict[str, int]]:
    """(binaries over all variations of `op`, by variation), of the kernel that needs most."""
    needed: dict[str, set[tuple[str, str]]] = {}
    for axis in WORKLOADS[op].varies:
        with FakeDriver(arch) as gpu:
            for choice in VARIATIONS[axis]:
                given = dict(choice)
                launcher.run(given.pop("m", ROWS), size, torch.bfloat16, "meta", **given)
        needed[axis] = {(one.name, one.kernel.metadata.hash) for one in gpu.launches}

    def most(found: set[tuple[str, str]]) -> int:
        return max(Counter(name for name, _ in found).values())

    by = {axis: most(found) for axis, found in needed.items()}
    return most(set().union(*needed.values())), by


def report_row(
    library: dict[str, str], op: str, arch: str, size: int, launcher: Workload | LigerLaunch
) -> dict[str, Any]:
    """One row, its bytes still to come; the launcher is called on meta tensors."""
    start = {**library, "op": op, "arch": arch, "size": size}
    try:
        with FakeDriver(arch) as gpu:
            launcher.run(ROWS, size, torch.bfloat16, "meta")
        total, by = binaries(arch, op, size, launcher)
    except Exception as error:  # noqa: BLE001  whatever it was is the row
        return {**start, "error": f"{type(error).__name__}: {error}"[:200]}
    kernels = {launched.kernel.metadata.hash: launched.kernel for launched in gpu.launches}
    found = [compiler_facts(kernel) for kernel in kernels.values()]
    loads: Counter[int] = sum((Counter(f.hot_loads) for f in found), Counter())
    stores: Counter[int] = sum((Counter(f.hot_stores) for f in found), Counter())
    return {
        **start,
        "registers": max(f.registers for f in found),
        "spills": sum(f.spills for f in found),
        "shared": max(f.shared for f in found),
        "hot_loads": dict(sorted(loads.items(), reverse=True)),
        "hot_stores": dict(sorted(stores.items(), reverse=True)),
        "binaries": total,
        "binaries_by": by,
    }


def job_rows(op: str, arch: str) -> list[dict[str, Any]]:
    """The rows of one job: at each size an operator's own beside Liger's and quack's."""
    peer = liger.installed_version()
    found = []
    with liger.device_of(arch, PROCESSORS[arch]) if peer else nullcontext():
        for size in WORKLOADS[op].sizes:
            row = report_row({"library": OURS}, op, arch, size, WORKLOADS[op])
            found.append({**row, **WORKLOADS[op].account(size)})
            if peer and op in LIGER:
                library = {"library": liger.NAME, "version": peer}
                found.append(report_row(library, op, arch, size, LIGER[op]))
    found += quack.quack_rows(op, arch)
    order = {size: place for place, size in enumerate(WORKLOADS[op].sizes)}
    return sorted(found, key=lambda entry: order[entry["size"]])


@contextmanager
def block_sigint() -> Iterator[None]:
    """Block SIGINT in children started in the block; a pending one is raised at its end.

    Children inherit the mask. It does not keep the signal from this process's other threads, so a
    handler keeps it meanwhile. Raises KeyboardInterrupt.
    """
    pending: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: pending.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if pending:
        raise KeyboardInterrupt


@contextmanager
def counting(
    arches: tuple[str, ...], ops: tuple[str, ...]
) -> Iterator[Callable[[], Iterator[dict[str, Any]]]]:
    """Count bytes in a process that interprets; the value yields its rows as they come."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "kernels.analysis.bytes"]
    command += [f"--arch={arch}" for arch in arches] + [f"--op={op}" for op in ops]
    with block_sigint():
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)

    def counted() -> Iterator[dict[str, Any]]:
        assert process.stdout is not None
        yield from map(json.loads, process.stdout)
        if process.wait():
            raise SystemExit("kernels.analysis.report: bytes could not be counted; see above")

    try:
        yield counted
    finally:
        process.kill()
        process.wait()


def _begin() -> None:
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # Triton's default, which warns


def report_rows(arches: tuple[str, ...], ops: tuple[str, ...]) -> list[dict[str, Any]]:
    """Every row, in order of operator, architecture, size and library."""
    jobs = [(op, arch) for op in ops for arch in arches]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    moved: dict[tuple[Any, ...], dict[str, Any]] = {}
    spawn = multiprocessing.get_context("spawn")
    workers = min(os.cpu_count() or 1, len(jobs))
    totals = {"compiled": len(jobs), "counted": len(jobs)}
    with (
        counting(arches, ops) as counted,
        ProcessPoolExecutor(workers, spawn, _begin) as pool,
        progress(totals) as done,
    ):
        try:
            with block_sigint():
                results = {pool.submit(job_rows, *job): job for job in jobs}
            for result in as_completed(results):
                op, arch = results[result]
                found[op, arch] = result.result()
                done("compiled", f"{op} {arch}: {outcome(found[op, arch])}")
            left = Counter(
                (entry["op"], entry["arch"])
                for some in found.values()
                for entry in some
                if entry["library"] != quack.NAME
            )
            for entry in counted():
                moved[row_key(entry)] = entry
                job = entry["op"], entry["arch"]
                left[job] -= 1
                if left[job] == 0:
                    done("counted", f"{job[0]} {job[1]}")
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()  # or leaving the pool would wait for all jobs
            raise
    entries = [entry for job in jobs for entry in found[job]]
    return [
        entry if "error" in entry else {**entry, **moved.get(row_key(entry), {})}
        for entry in entries
    ]


def outcome(entries: list[dict[str, Any]]) -> str:
    """The compiler's verdict on the rows of a job, by library: `3 rows, 0 spills, 1 binary`."""
    texts = []
    for library in dict.fromkeys(entry["library"] for entry in entries):
        some = [entry for entry in entries if entry["library"] == library]
        failed = sum("error" in entry for entry in some)
        spills = sum(entry.get("spills", 0) for entry in some)
        most = max(entry.get("binaries", 0) for entry in some)
        text = f"{len(some)} rows, {spills} spills, {most} {'binary' if most == 1 else 'binaries'}"
        text += f", {failed} failed" if failed else ""
        texts.append(text if library == OURS else f"{library} {text}")
    return "; ".join(texts)


def row_key(entry: dict[str, Any]) -> tuple[Any, ...]:
    """The values that name a row."""
    return tuple(entry[name] for name in ("library", "op", "arch", "size"))


def cell(value: Any) -> str:
    """One cell: widths as `128:4 32:1`, a missing value as a dash."""
    if isinstance(value, dict):
        return " ".join(f"{bits}:{count}" for bits, count in value.items()) or "-"
    return "-" if value is None else str(value)


def write_table(found: list[dict[str, Any]]) -> None:
    """Write the rows to stdout as a table as wide as it must be; errors stand in a last column."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for heading in (*COLUMNS.values(), ""):
        table.add_column(heading, no_wrap=True)
    for entry in found:
        note = entry.get("error") or entry.get("bytes_error") or ""
        if "chunk_tokens" in entry:
            note += (
                f"chunks of {entry['chunk_tokens']} tokens, {entry['chunk_mib']} MiB; "
                f"{entry['moved_gib']} GiB moved, {entry['weight_share']:.0%} of it the weight's"
            )
        table.add_row(*(cell(entry.get(name)) for name in COLUMNS), note)
    Console(markup=False, highlight=False, width=1000).print(table)


def report_run(seconds: float) -> ReportRun:
    """The circumstances of a report that took `seconds`."""
    versions = {"Triton": triton.__version__, "torch": torch.__version__}
    if peer := liger.installed_version():
        versions[liger.NAME] = peer
    written = datetime.now(UTC).isoformat(timespec="seconds")
    other = quack.installed_quack()
    if other:
        versions[quack.NAME] = other
    note = quack.quack_note(other)
    return ReportRun(written, seconds, os.cpu_count() or 1, versions, (note,))


def main(argv: list[str] | None = None) -> int:
    """Write the report; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m kernels.analysis.report", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="a JSON list of rows")
    parser.add_argument("--html", type=Path, metavar="FILE", help="the page, whole in itself")
    parser.add_argument(
        "--records", type=Path, metavar="DIR", help="definitions and workloads for FlashInfer-Bench"
    )
    parser.add_argument("--arch", choices=ARCHES, action="append")
    parser.add_argument("--op", choices=sorted(WORKLOADS), action="append")
    arguments = parser.parse_args(argv)
    peer = liger.installed_version()
    beside = f"beside liger-kernel {peer}" if peer else "alone: liger-kernel is not installed"
    if arguments.html and not arguments.html.parent.is_dir():
        parser.error(f"--html {arguments.html}: there is no folder {arguments.html.parent}")
    operators, problems = recorded_operators(BENCH_CASES) if arguments.records else ([], [])
    missing = missing_forms()
    for problem in (*problems, *missing):
        sys.stderr.write(f"kernels.analysis.report: {problem}\n")
    sys.stderr.write(f"kernels.analysis.report: compiling, {beside}\n")
    sys.stderr.flush()
    start = time.monotonic()
    try:
        found = report_rows(tuple(arguments.arch or ARCHES), tuple(arguments.op or WORKLOADS))
    except KeyboardInterrupt:
        sys.stderr.write("kernels.analysis.report: interrupted\n")
        return 130
    run = report_run(time.monotonic() - start)
    if arguments.html:
        arguments.html.write_text(report_page(found, run), encoding="utf-8")
    if arguments.records:
        write_records(arguments.records, operators, found, run)
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        write_table(found)
    sys.stderr.write(f"kernels.analysis.report: {len(found)} rows in {run.seconds:.0f} s\n")
    ours = (entry for entry in found if entry["library"] == OURS)
    failed = any({"error", "bytes_error"} & entry.keys() for entry in ours)
    return int(failed or bool(missing))


if __name__ == "__main__":
    raise SystemExit(main())
