"""The stages of `scripts/test` as values, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from conf.errors import ConfigError
from conf.names import nearest

REPO = Path(__file__).resolve().parents[1]
BIN = REPO / ".venv/bin"
REPORTS = REPO / "build/test-reports"

QUICKSTART = "tests/site/test_quickstart.py"
FLEET = "tests/serving/fleet"
LIFECYCLE = "tests/site/test_lifecycle.py"
OWN_PROCESS = "site or triton or kernels_interpret or kernels_compile"


@dataclass(frozen=True)
class Stage:
    """One command of the suite: a linter, or pytest with a marker expression."""

    name: str
    argv: tuple[str, ...] = ()
    """Of a linter; empty for a stage of pytest."""
    marker: str = ""
    """Marker expression of the tests of a pytest stage."""
    folder: str = "tests"
    """Folder or file that the tests of the stage lie in."""
    ignored: tuple[str, ...] = ()
    """Files in `folder` that another stage runs."""
    paths: tuple[str, ...] = ()
    """Parts of `folder` that a person chose; empty for all of it."""
    fast: bool = False
    """Needs no daemon and no compiler."""
    alone: bool = False
    """Uses the site, or measures time: nothing else runs beside it."""
    again: bool = False
    """Real daemons on a busy machine: what failed is run once more, and both outcomes are shown."""
    full: bool = False
    """Also runs the tests marked `full`."""

    @property
    def is_pytest(self) -> bool:
        return not self.argv

    @property
    def report(self) -> Path:
        """JUnit report of a pytest stage."""
        return REPORTS / f"{self.name}.xml"

    @property
    def second_report(self) -> Path:
        """JUnit report of the second try of what failed."""
        return REPORTS / f"{self.name}-again.xml"

    def command(self, second: bool = False) -> list[str]:
        """The command line; of the `second` try, of the tests that failed in the first."""
        if not self.is_pytest:
            return list(self.argv)
        marker = self.marker if self.full else f"({self.marker}) and not full"
        report = self.second_report if second else self.report
        return [
            str(BIN / "python"), "-m", "pytest", "-q", "-m", marker, f"--junitxml={report}",
            # Of its own: two stages that run at the same time would write into one cache.
            "-o", f"cache_dir={REPORTS / f'{self.name}-cache'}",
            *(f"--ignore={path}" for path in self.ignored),
            *(["--last-failed"] if second else []),
            *(self.paths or (self.folder,)),
        ]  # fmt: skip


def linter(name: str, *argv: str) -> Stage:
    return Stage(name, argv=argv, fast=True)


STAGES = (
    linter("ruff", str(BIN / "ruff"), "check", "."),
    linter("format", str(BIN / "ruff"), "format", "--check", "."),
    linter("types", str(BIN / "mypy")),
    linter("imports", str(BIN / "lint-imports")),
    # The interpreter and the compiler cannot share a process: TRITON_INTERPRET is read at import.
    # The longest first: what runs beside others then ends together. The fleet's daemons wait more
    # than they work, and nothing there is held to a time.
    Stage("fleet", marker="triton and not site", folder=FLEET, again=True),
    Stage("kernels-interpret", marker="kernels_interpret", folder="tests/kernels"),
    Stage("kernels-compile", marker="kernels_compile", folder="tests/kernels"),
    Stage("slow", marker=f"slow and not ({OWN_PROCESS})"),
    Stage("unit", marker=f"not slow and not ({OWN_PROCESS})", fast=True),
    # A box of its own, in front of the one that the stages behind it share.
    Stage("lifecycle", marker="site", folder=LIFECYCLE, again=True),
    Stage("triton", marker="triton and not site", ignored=(FLEET,), alone=True, again=True),
    # First what a new user does: the other site tests use what it leaves in production.
    Stage("quickstart", marker="site", folder=QUICKSTART, alone=True, again=True),
    Stage("site", marker="site", ignored=(QUICKSTART, LIFECYCLE), alone=True, again=True),
)


def choose_stages(
    stages: Sequence[Stage], only: Sequence[str] = (), fast: bool = False, full: bool = False
) -> list[Stage]:
    """The stages to run: all, those named in `only`, or those with tests in its folders and files.

    A folder is one of `tests/`, or a source folder such as `serving/artifact`, which stands for its
    tests. Names and folders together run the named stages on those folders. Raises ConfigError.
    """
    names = {stage.name for stage in stages}
    named = {word for word in only if word in names}
    paths = [_test_path(word, names) for word in only if word not in names]
    chosen = []
    for stage in stages:
        if (fast and not stage.fast) or (named and stage.name not in named):
            continue
        if paths and stage.is_pytest:
            parts = tuple(dict.fromkeys(part for path in paths if (part := _within(stage, path))))
            if parts:
                chosen.append(replace(stage, paths=parts, full=full))
        elif not paths or named:
            chosen.append(replace(stage, full=full))
    return chosen


def _test_path(word: str, names: set[str]) -> str:
    """`serving/artifact` -> `tests/serving/artifact`, `x/y.py` -> `tests/x/test_y.py`."""
    path = Path(word)
    options = [path] if path.parts[:1] == ("tests",) else []
    options += [Path("tests") / path, Path("tests") / path.parent / f"test_{path.name}"]
    for option in options:
        if (REPO / option).exists():
            return option.as_posix()
    folders = {folder.relative_to(REPO).as_posix() for folder in (REPO / "tests").glob("**/")}
    valid = {folder for folder in folders if "__pycache__" not in folder}
    raise ConfigError(
        f"--only {word}: no such stage or folder of tests. {nearest(word, valid | names)}"
    )


def _within(stage: Stage, path: str) -> str:
    """The part of the stage's folder that lies in `path`; "" for none."""
    if Path(path).is_relative_to(stage.folder):
        return "" if path in stage.ignored else path
    return stage.folder if Path(stage.folder).is_relative_to(path) else ""
