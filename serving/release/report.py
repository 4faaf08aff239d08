"""The report of a release: a table for people, one JSON object for machines, kept in the store."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from conf.errors import DONE, REFUSED
from serving.artifact.digest import short
from serving.artifact.durable import replace_file
from serving.artifact.manifest import FileEntry, GateRecord
from serving.artifact.store import REPORTS
from serving.release.gate import refused

Outcome = Literal["released", "unchanged", "refused", "passed"]
_COLOURS = {"pass": "green", "fail": "red", "unknown": "yellow"}


@dataclass(frozen=True)
class ReleaseReport:
    """One release: `passed` is a dry run whose gates all passed. `digest` is the version's.

    `code` are the files that are the task's own code, with their digests.
    """

    outcome: Outcome
    model: str
    version: int | None
    run: str
    digest: str | None
    production: int | None
    started: str
    seconds: float
    gates: tuple[GateRecord, ...]
    code: tuple[FileEntry, ...] = ()
    path: str | None = None

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @property
    def exit_code(self) -> int:
        return REFUSED if self.outcome == "refused" else DONE


def keep_report(report: ReleaseReport, store: Path) -> Path:
    """Write the report to `<store>/reports/`, whole or not at all; returns the file."""
    folder = Path(store) / REPORTS
    folder.mkdir(parents=True, exist_ok=True)
    stamp = report.started.replace(":", "").replace("-", "")
    path = folder / f"{report.model}-{report.run}-{stamp}.json"
    replace_file(path, report.as_json() + "\n")
    return path


def gate_table(records: tuple[GateRecord, ...], title: str) -> Table:
    """The gates as a table: verdict, value, threshold, shortfall and detail."""
    shown = Table(title=title, box=box.SIMPLE, title_justify="left")
    for name in ("gate", "verdict", "value", "threshold", "by"):
        numeric = name in ("value", "threshold", "by")
        shown.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    shown.add_column("detail", overflow="fold")
    for record in records:
        verdict = Text(record.verdict, _COLOURS[record.verdict])
        verdict.append("" if record.required else " (reported)", "dim")
        shown.add_row(
            record.name,
            verdict,
            short_number(record.value),
            short_number(record.threshold),
            short_number(shortfall(record)),
            Text(record.detail),
        )
    return shown


def print_report(report: ReleaseReport, console: Console) -> None:
    """Print the outcome and the required gates that failed (all were printed as progress)."""
    bad = tuple(refused(report.gates))
    if bad:
        console.print(
            gate_table(bad, f"Not released: {len(bad)} of {len(report.gates)} gates failed")
        )
    for entry in report.code:
        line = f"own code: {entry.path} sha256:{short(entry.sha256)}"
        console.print(line, highlight=False, soft_wrap=True)
    console.print(_sentence(report), highlight=False, soft_wrap=True)


def progress_line(record: GateRecord) -> str:
    """One gate as a line of progress."""
    verdict = record.verdict if record.required else f"({record.verdict})"
    against = "" if record.threshold is None else f"[{short_number(record.threshold)}]"
    words = (f"{verdict:9} {record.name:28}", short_number(record.value), against, record.detail)
    return " ".join(word for word in words if word)


def shortfall(record: GateRecord) -> float | None:
    """By how much a failed gate missed its threshold."""
    if record.verdict != "fail" or record.value is None or record.threshold is None:
        return None
    return abs(record.value - record.threshold)


def short_number(value: float | None) -> str:
    """Short enough for a column: five digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.5g}"


def _sentence(report: ReleaseReport) -> str:
    if report.outcome == "refused":
        return f"{report.model} of {report.run} was not released; nothing was registered."
    if report.outcome == "passed":
        return f"{report.model} of {report.run} passed every required gate (dry run)."
    before = f"production is {report.production}" if report.production else "none is in production"
    which = f"{report.model}/{report.version} sha256:{(report.digest or '')[:12]}"
    verb = "was released already: unchanged" if report.outcome == "unchanged" else "is released"
    return f"{which} of {report.run} {verb}; {before}. Next: fab plan"
