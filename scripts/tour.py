"""The tour behind `scripts/quickstart`: every step is a public command, typed as its identity, and
asks the world first, so that a killed tour is continued by running it again."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from conf import compose
from scripts.loadtest.plan import Result, plan_for
from scripts.loadtest.running import start
from scripts.tour_report import Facts, ask_every_region, report, scrape_targets
from serving.artifact.durable import replace_file

REPO = Path(__file__).resolve().parents[1]
SITE = str(REPO / "scripts/site")
DATA = {"flights": "flights", "lm": "webster"}
# The second flights version is the same recipe from another seed: what a researcher tries next.
VERSIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "flights": (("seed=1",), ("seed=2",)),
    "lm": ((),),
}
ENDED_BADLY = ("failed", "cancelled", "stopped", "not submitted")
POLL_SECONDS = 3.0
TRAFFIC = {"rate": 20.0, "duration_s": 900.0}  # an upper bound: it is stopped when the roll ends
TRAFFIC_MARGIN_SECONDS = 3.0

# A pipe has no width; whole lines are what a log and a person want there.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


class StepFailed(RuntimeError):
    """A command of the tour failed; its own output above says why."""


def typed(identity: str | None, *argv: str, quiet: bool = False, show: bool = False) -> str:
    """Run one public command as an identity of the box, shown as a person would type it.

    Returns its standard output, which is also printed where `show` says so; standard error goes
    to the terminal. Raises `StepFailed`.
    """
    command = [SITE, "as", identity, *argv] if identity else list(argv)
    if not quiet:
        who = "scripts/site as " + identity + " " if identity else ""
        console.print(f"   [dim]$ {who}{' '.join(argv).replace(f'{REPO}/', '')}[/dim]")
    done = subprocess.run(
        command, cwd=REPO, stdout=None if show else subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        console.print((done.stdout or "").strip(), markup=False)
        raise StepFailed(f"`{' '.join(argv)}` ended with exit code {done.returncode}")
    return done.stdout or ""


def answer(identity: str, *argv: str, quiet: bool = False) -> Any:
    """The `--json` answer of a command."""
    return json.loads(typed(identity, *argv, "--json", quiet=quiet))


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step, and say how long it took."""
    console.print(f"[bold cyan]>>[/bold cyan] [bold]{title}[/bold]")
    started = time.monotonic()
    yield
    console.print(f"   [green]done[/green] in {time.monotonic() - started:.0f} s")


class Record:
    """Which runs this tour submitted, so that a second start continues them. Atomic on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def keep(self, key: str, run: str) -> None:
        self.runs[key] = run
        replace_file(self.path, json.dumps(self.runs))

    def close(self) -> None:
        self.path.unlink(missing_ok=True)


def run_state(run: str) -> dict[str, Any] | None:
    rows = answer("train", "lockgate", "ls", "-n", "1000", quiet=True)
    return next((row for row in rows if row["run"] == run), None)


def train(task: str, key: str, overrides: Sequence[str], record: Record) -> dict[str, Any]:
    """Submit a training run, or find the one that an earlier tour submitted, and follow it."""
    state = run_state(record.runs[key]) if key in record.runs else None
    if state is None or state["state"] in ENDED_BADLY:
        submitted = answer("train", "lockgate", "train", f"task={task}", *overrides)
        record.keep(key, submitted["run"])
    return follow(record.runs[key])


def follow(run: str) -> dict[str, Any]:
    """Wait for a run to finish; a line for every change that a person would want to see."""
    shown = ""
    while True:
        row = run_state(run)
        if row is None:
            raise StepFailed(f"run {run} is gone from `lockgate ls`")
        line = f"   {run}: {row['state']}, step {row['step']}/{row['steps']}"
        line += f", loss {row['loss']:.4f}" if row["loss"] is not None else ""
        if line != shown:
            console.print(line)
            shown = line
        if row["state"] == "finished":
            return row
        if row["state"] in ENDED_BADLY:
            raise StepFailed(f"run {run} {row['state']}: scripts/site as train lockgate logs {run}")
        time.sleep(POLL_SECONDS)


def roll(model: str, version: int, *, traffic: bool) -> Result | None:
    """Deploy one version host by host, with clients asking all the while where `traffic`."""
    which = ("--model", model, "--version", str(version))
    typed("deploy", "fab", "plan", *which, show=True)
    if not traffic:
        typed("deploy", "fab", "deploy", *which, show=True)
        return None
    with start(plan_for(model, **TRAFFIC)) as clients:
        time.sleep(TRAFFIC_MARGIN_SECONDS)
        typed("deploy", "fab", "deploy", *which, show=True)
        time.sleep(TRAFFIC_MARGIN_SECONDS)
        seen = clients.stop()
    console.print(f"   clients: {seen.line()}")
    return seen


def tour(task: str, extra: Sequence[str], facts: Facts, record: Record) -> None:
    """The main job, end to end; fills `facts` as it goes."""
    with step("1. The site: Slurm, SSH hosts, Triton, HAProxy, Prometheus, MLflow"):
        typed(None, SITE, "up", show=True)
    with step(f"2. Data: {DATA[task]}"):
        facts.dataset = answer("train", "lockgate", "data", "prepare", f"data={DATA[task]}")
    for number, overrides in enumerate(VERSIONS[task], start=1):
        with step(f"3.{number} Train on Slurm through DeepSpeed"):
            facts.runs.append(train(task, f"{task}-{number}", [*overrides, *extra], record))
        with step(f"4.{number} Gates, signature, registry"):
            run = facts.runs[-1]["run"]
            facts.releases.append(answer("release", "lockgate", "release", f"run={run}"))
        if f"{task}-{number + 1}" in record.runs:
            continue  # an earlier tour had rolled this version out before it went on to the next
        live = number > 1
        with step(f"5.{number} Roll out, host by host{', under live traffic' if live else ''}"):
            facts.traffic = roll(task, facts.version, traffic=live)
    with step("6. Ask every region, and Prometheus"):
        store = Path(facts.site.paths.store)
        facts.answers = ask_every_region(facts.site, store, task, facts.version)
        facts.targets = scrape_targets(facts.site)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    parser.add_argument("--task", choices=sorted(DATA), default="flights")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="for lockgate train, as in steps=2000"
    )
    options = parser.parse_args(argv)
    site = compose("site").site
    root = Path(site.root)
    root.mkdir(exist_ok=True)
    record = Record(root / f"tour-{options.task}.json")
    facts = Facts(site=site, task=options.task)
    try:
        tour(options.task, options.overrides, facts, record)
    except StepFailed as failure:
        console.print(f"[bold red]quickstart stopped:[/bold red] {failure}")
        console.print("What was done stays done; run it again to continue.")
        return 1
    except KeyboardInterrupt:
        console.print("\nInterrupted; run it again to continue. `scripts/site down` ends the box.")
        return 130
    record.close()
    return report(console, facts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
