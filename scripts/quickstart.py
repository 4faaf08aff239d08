"""The demonstration behind `scripts/quickstart`, for any task of `conf/task`.

Every step is a public command, typed as its identity, and looks at the present state first: a
quickstart that was killed is continued by running it again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from conf import ConfigError, compose
from conf.schema import from_config
from conf.site_schema import site_config
from conf.tree import options
from scripts.loadtest.plan import Result, plan_for
from scripts.loadtest.running import start
from scripts.quickstart_report import QuickstartResult, print_report, query_region, scrape_targets
from serving.artifact.durable import replace_file
from serving.artifact.golden import read_examples
from serving.triton.server import TritonError

REPO = Path(__file__).resolve().parents[1]
SITE = str(REPO / "scripts/site")
ENDED_BADLY = ("failed", "cancelled", "stopped", "not submitted")
POLL_S = 3.0
TRAFFIC_LIMIT_S = 900.0  # an upper bound: the clients are stopped when the rollout ends
TRAFFIC_MARGIN_S = 3.0

# A pipe has no width; whole lines are what a log and a person want there.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


class StepFailed(RuntimeError):
    """A command of the quickstart failed; its own output above has the reason."""


@dataclass(frozen=True)
class QuickstartConfig:
    """The demonstration of one task."""

    versions: tuple[tuple[str, ...], ...]
    """Overrides of `lockgate train` for each version that is trained, released and rolled out."""
    requests_per_s: float
    """Load of the clients while a second or later version is rolled out."""

    def __post_init__(self) -> None:
        if not self.versions:
            raise ValueError("versions=[]: must be at least one list of overrides, such as [[]]")
        if self.requests_per_s <= 0:
            raise ValueError(f"requests_per_s={self.requests_per_s}: must be above 0")


def quickstart_config(task: str) -> QuickstartConfig:
    """The demonstration of `task`: a file of its own name, or the default one."""
    chosen = [f"quickstart={task}"] if task in options("quickstart") else []
    config = compose("quickstart", chosen)
    return from_config(QuickstartConfig, config.quickstart, "quickstart")


class SubmittedRuns:
    """Runs that this quickstart submitted, so that a second start continues them; on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def add(self, key: str, run: str) -> None:
        self.runs[key] = run
        replace_file(self.path, json.dumps(self.runs))

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


def run_command(identity: str | None, *argv: str, quiet: bool = False, show: bool = False) -> str:
    """Run one public command as an identity of the box, shown as a person would type it.

    Returns its standard output, which is also printed where `show`; standard error goes to the
    terminal. Raises `StepFailed`.
    """
    command = [SITE, "as", identity, *argv] if identity else list(argv)
    if not quiet:
        prefix = f"scripts/site as {identity} " if identity else ""
        console.print(f"   [dim]$ {prefix}{' '.join(argv).replace(f'{REPO}/', '')}[/dim]")
    done = subprocess.run(
        command, cwd=REPO, stdout=None if show else subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        console.print((done.stdout or "").strip(), markup=False)
        raise StepFailed(f"`{' '.join(argv)}` ended with exit code {done.returncode}")
    return done.stdout or ""


def json_output(identity: str, *argv: str, quiet: bool = False) -> Any:
    """The parsed output of a command run with `--json`."""
    return json.loads(run_command(identity, *argv, "--json", quiet=quiet))


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print the title of a step, and at its end the seconds that it took."""
    console.print(f"[bold cyan]>>[/bold cyan] [bold]{title}[/bold]")
    started = time.monotonic()
    yield
    console.print(f"   [green]done[/green] in {time.monotonic() - started:.0f} s")


def run_state(run: str) -> dict[str, Any] | None:
    """The row of `lockgate ls` of a run; None where it is not listed."""
    rows = json_output("train", "lockgate", "ls", "-n", "1000", quiet=True)
    return next((row for row in rows if row["run"] == run), None)


def train(
    task: str, key: str, overrides: Sequence[str], submitted: SubmittedRuns
) -> dict[str, Any]:
    """Submit a training run, or find the one of an earlier quickstart, and follow it to its end."""
    state = run_state(submitted.runs[key]) if key in submitted.runs else None
    if state is None or state["state"] in ENDED_BADLY:
        made = json_output("train", "lockgate", "train", f"task={task}", *overrides)
        submitted.add(key, made["run"])
    return follow(submitted.runs[key])


def follow(run: str) -> dict[str, Any]:
    """Wait for a run to finish, with a line for every change; returns its row of `lockgate ls`."""
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
        time.sleep(POLL_S)


def roll_out(model: str, version: int, requests_per_s: float | None) -> Result | None:
    """Deploy one version host by host, under clients' load where a rate is given."""
    which = ("--model", model, "--version", str(version))
    run_command("deploy", "fab", "plan", *which, show=True)
    if requests_per_s is None:
        run_command("deploy", "fab", "deploy", *which, show=True)
        return None
    plan = plan_for(model, rate=requests_per_s, duration_s=TRAFFIC_LIMIT_S)
    with start(plan) as clients:
        time.sleep(TRAFFIC_MARGIN_S)
        run_command("deploy", "fab", "deploy", *which, show=True)
        time.sleep(TRAFFIC_MARGIN_S)
        seen = clients.stop()
    console.print(f"   clients: {seen.line()}")
    return seen


def demonstrate(
    task: str, extra: Sequence[str], result: QuickstartResult, submitted: SubmittedRuns
) -> None:
    """The main job, end to end; fills `result` on its way."""
    config = quickstart_config(task)
    dataset = str(compose("train", [f"task={task}"]).task.dataset)
    with step("1. The site: Slurm, SSH hosts, Triton, HAProxy, Prometheus, MLflow"):
        run_command(None, SITE, "up", show=True)
    with step(f"2. Data: {dataset}"):
        json_output("train", "lockgate", "data", "prepare", f"data={dataset}")
    for number, overrides in enumerate(config.versions, start=1):
        with step(f"3.{number} Train on Slurm through DeepSpeed"):
            row = train(task, f"{task}-{number}", [*overrides, *extra], submitted)
        with step(f"4.{number} Gates, signature, registry"):
            released = json_output("release", "lockgate", "release", f"run={row['run']}")
            result.releases.append(released)
        if f"{task}-{number + 1}" in submitted.runs:
            continue  # an earlier quickstart had rolled this one out before it went on to the next
        live = number > 1
        with step(f"5.{number} Roll out, host by host{', under live traffic' if live else ''}"):
            rate = config.requests_per_s if live else None
            result.traffic = roll_out(result.model, result.version, rate)
    with step("6. A request through every region, and Prometheus"):
        package = result.site.paths.store / result.model / str(result.version)
        result.examples = read_examples(package)
        for region in result.site.edges:
            result.answers[region] = query_region(result, region)
        result.targets = scrape_targets(result.site)


def main(argv: list[str]) -> int:
    """Run the demonstration; 0 when all went well, 1 when not, 2 for a mistake in `argv`."""
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    parser.add_argument(
        "--task", help="a file of conf/task; without it, that of conf/quickstart.yaml"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="for lockgate train, as in steps=2000"
    )
    given = parser.parse_args(argv)
    try:
        config = compose("quickstart")
        site, task = site_config(config), given.task or str(config.task)
        site.root.mkdir(exist_ok=True)
        submitted = SubmittedRuns(site.root / f"quickstart-{task}.json")
        result = QuickstartResult(site=site)
        demonstrate(task, given.overrides, result, submitted)
    except ConfigError as error:
        console.print(f"scripts/quickstart: {error}", markup=False)
        return error.exit_code
    except (StepFailed, TritonError) as failure:
        console.print(f"[bold red]quickstart stopped:[/bold red] {failure}")
        console.print("What was done stays done; run it again to continue.")
        return 1
    except KeyboardInterrupt:
        console.print("\nInterrupted; run it again to continue. `scripts/site down` ends the box.")
        return 130
    submitted.forget()
    return print_report(console, result)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
