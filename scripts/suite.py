"""The stages of `scripts/test`: each a command, all run, counted together at the end."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
BIN = REPO / ".venv/bin"
REPORTS = REPO / "build/test-reports"

QUICKSTART = "tests/site/test_quickstart.py"
APART = "site or triton or kernels_interpret or kernels_compile"


@dataclass(frozen=True)
class Stage:
    """One command of the suite; a pytest stage leaves a JUnit report that is counted."""

    name: str
    argv: tuple[str, ...]
    fast: bool = False
    again: bool = False
    """Real daemons on a busy machine: what failed is run once more, alone, and both are printed."""

    @property
    def report(self) -> Path:
        return REPORTS / f"{self.name}.xml"


def pytest_stage(name: str, *arguments: str, fast: bool = False, again: bool = False) -> Stage:
    report = f"--junitxml={REPORTS / name}.xml"
    argv = (str(BIN / "python"), "-m", "pytest", "-q", report, *arguments)
    return Stage(name, argv, fast, again)


STAGES = (
    Stage("ruff", (str(BIN / "ruff"), "check", "."), fast=True),
    Stage("format", (str(BIN / "ruff"), "format", "--check", "."), fast=True),
    Stage("types", (str(BIN / "mypy"),), fast=True),
    Stage("imports", (str(BIN / "lint-imports"),), fast=True),
    pytest_stage("unit", "-m", f"not slow and not ({APART})", fast=True),
    pytest_stage("slow", "-m", f"slow and not ({APART})"),
    # The interpreter and the compiler cannot share a process: TRITON_INTERPRET is read at import.
    pytest_stage("kernels-interpret", "tests/kernels", "-m", "kernels_interpret"),
    pytest_stage("kernels-compile", "tests/kernels", "-m", "kernels_compile"),
    pytest_stage("triton", "-m", "triton and not site", again=True),
    # First what a new user does: the other site tests use what it leaves in production.
    pytest_stage("quickstart", "-m", "site", QUICKSTART, again=True),
    pytest_stage("site", "-m", "site", f"--ignore={QUICKSTART}", again=True),
)


def counts(report: Path) -> Counter[str]:
    """Passed, failed and skipped of one JUnit report; a missing report counts as one failure."""
    if not report.exists():
        return Counter(failed=1)
    total: Counter[str] = Counter()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        total.update(passed=tests - failed - skipped, failed=failed, skipped=skipped)
    return total


def run(stage: Stage) -> Counter[str]:
    """Run one stage to its end, its output passed through; returns its counts."""
    print(f"== {stage.name}: {' '.join(stage.argv)}", flush=True)
    started = time.monotonic()
    stage.report.unlink(missing_ok=True)
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    code = subprocess.run(stage.argv, cwd=REPO, env=environment).returncode
    if "pytest" in stage.argv:
        total = counts(stage.report)
        if code == 1 and stage.again:
            print(f"== {stage.name}: {total['failed']} failed; once more, alone", flush=True)
            code = subprocess.run(
                [*stage.argv, "--last-failed"], cwd=REPO, env=environment
            ).returncode
            second = counts(stage.report)
            total.update(passed=second["passed"], failed=second["failed"] - total["failed"])
        if code and not total["failed"]:
            total["failed"] += 1
    else:
        total = Counter(passed=int(code == 0), failed=int(code != 0))
    print(f"== {stage.name}: exit {code}, {time.monotonic() - started:.0f} s", flush=True)
    return total


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="only what needs no daemon: seconds")
    parser.add_argument("--only", default="", help=f"of {','.join(s.name for s in STAGES)}")
    options = parser.parse_args(argv)
    wanted = set(filter(None, options.only.split(",")))
    unknown = wanted - {stage.name for stage in STAGES}
    if unknown:
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")
    REPORTS.mkdir(parents=True, exist_ok=True)
    total: Counter[str] = Counter()
    failed = []
    for stage in STAGES:
        if (wanted and stage.name not in wanted) or (options.fast and not stage.fast):
            continue
        result = run(stage)
        total += result
        failed += [stage.name] if result["failed"] else []
    if failed:
        print(f"failed stages: {', '.join(failed)}")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
