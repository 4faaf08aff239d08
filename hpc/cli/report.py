"""`lockgate report RUN [RUN...]`: runs as one HTML page that opens from disk."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc.jobs.run.folder import Run

DESCRIPTION = """\
Write one HTML page about a run, or about several beside one another, of what their folders hold:
how it ended, time line, curves, and the command that repeats it. It opens from disk, anywhere.
"""
MOST_RUNS = 200


def main(argv: Sequence[str]) -> int:
    """Run `lockgate report ARGV`. Raises `ConfigError`, `UnknownRun` and OSError."""
    parser = argparse.ArgumentParser(prog="lockgate report", description=DESCRIPTION)
    parser.add_argument(
        "words", nargs="+", metavar="RUN", help="a run's name, its end, or `last`; key=value"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: RUN.html)")
    options = parser.parse_intermixed_args(list(argv))
    from conf import ConfigError
    from hpc.report.notes import report_notes
    from hpc.report.page import report_page
    from hpc.report.reported_run import reported_runs
    from serving.artifact.durable import replace_file

    runs = _runs(options.words)
    out: Path = options.out or Path(_file_name(runs))
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder. Type: --out {out / _file_name(runs)}")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}. Type: mkdir {out.parent}")
    found = reported_runs(runs)
    page = report_page(found, report_notes(found), time.time())
    replace_file(out, page, durable=False)
    print(out)
    return 0


def _runs(words: Sequence[str]) -> list[Run]:
    """The runs that `words` name, each once, in their order; the other words are overrides."""
    from conf import ConfigError
    from hpc.cli.site import run_word, runs_folder
    from hpc.jobs.run.folder import find_run

    overrides = [word for word in words if "=" in word and not word.startswith("run=")]
    names = [word for word in words if word not in overrides]
    if not names:
        raise ConfigError("name at least one run; `lockgate ls` lists them, `last` is the newest")
    if len(names) > MOST_RUNS:
        raise ConfigError(f"{len(names)} runs were named, and one page holds {MOST_RUNS} at most")
    folder = runs_folder(overrides)
    found = [find_run(folder, run_word([name], "report")[0]) for name in names]
    return list(dict.fromkeys(found))


def _file_name(runs: Sequence[Run]) -> str:
    more = f"-and-{len(runs) - 1}-more" if len(runs) > 1 else ""
    return f"{runs[0].name}{more}.html"
