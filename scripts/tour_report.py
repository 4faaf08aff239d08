"""What `scripts/quickstart` shows at its end: what was trained, how good, what is served where."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table

from scripts.loadtest.plan import Result
from serving.artifact.golden import read_examples
from serving.triton.kserve import encode_request, infer_path

PROMPT = "Canal, n. [F. canal, from L. canalis"
NEW_TOKENS = 48
# Gates that say a package is whole; the table at the end is about how good and how fast it is.
ASIDE = ("hygiene.", "interface.", "golden.", "latency.p50", "latency.vs")


@dataclass
class Facts:
    """What the tour saw on its way."""

    site: DictConfig
    task: str
    dataset: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    releases: list[dict[str, Any]] = field(default_factory=list)
    traffic: Result | None = None
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """The version that the tour released last."""
        return int(self.releases[-1]["version"])


def ask_every_region(site: DictConfig, store: Path, model: str, version: int) -> dict[str, Any]:
    """One real request through each region's HAProxy: region -> the decoded answer."""
    example = read_examples(store / model / str(version))[0]
    inputs = dict(example.inputs)
    if model == "lm":
        inputs["text"] = np.full_like(inputs["text"], PROMPT.encode())
        inputs["max_new_tokens"] = np.full_like(inputs["max_new_tokens"], NEW_TOKENS)
    sent = encode_request(inputs, example.outputs, binary=False)
    answers = {}
    for region, edge in site.edges.items():
        url = f"http://{edge.address}:{edge.http_port}{infer_path(model)}"
        request = urllib.request.Request(url, sent.body, sent.headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            answers[str(region)] = json.load(reply)
    return answers


def scrape_targets(site: DictConfig) -> dict[str, str]:
    """Prometheus' view of its own targets: scrape URL -> health."""
    with urllib.request.urlopen(f"{site.prometheus_url}/api/v1/targets", timeout=10) as reply:
        targets = json.load(reply)["data"]["activeTargets"]
    return {target["scrapeUrl"]: target["health"] for target in targets}


def report(console: Console, facts: Facts) -> int:
    """Print the closing table; returns 0, or 1 where something is not as it must be."""
    console.print()
    console.print(_releases(facts))
    console.print(_served(facts))
    wrong = problems(facts)
    for region, answer in facts.answers.items() if facts.task == "lm" else ():
        text = next(o["data"][0] for o in answer["outputs"] if o["name"] == "completion")
        console.print(f"[bold]{region}[/bold] was asked {PROMPT!r} and wrote:\n  {text!r}")
    console.print(_urls(facts.site))
    for problem in wrong:
        console.print(f"[bold red]not as it must be:[/bold red] {problem}")
    return 1 if wrong else 0


def problems(facts: Facts) -> list[str]:
    """What a person should not overlook, as sentences; empty when all is well."""
    found = [
        f"{region} answered with version {answer.get('model_version')}, not {facts.version}"
        for region, answer in facts.answers.items()
        if str(answer.get("model_version")) != str(facts.version)
    ]
    if facts.traffic is not None and facts.traffic.failed:
        found.append(
            f"{facts.traffic.failed} requests failed during the roll: {facts.traffic.line()}"
        )
    found += [
        f"Prometheus target {url} is {how}" for url, how in facts.targets.items() if how == "down"
    ]
    return found


def _releases(facts: Facts) -> Table:
    """A line for each gate on quality or speed; the other gates are counted."""
    table = Table(title="What was trained and released", box=box.SIMPLE, title_justify="left")
    for name in ("version", "gate", "verdict", "detail"):
        table.add_column(name)
    for release in facts.releases:
        gates = release["gates"]
        title = f"{release['model']} {release['version']}"
        passed = sum(gate["verdict"] == "pass" for gate in gates)
        table.add_row(
            title, f"{passed} of {len(gates)} gates", "pass", f"trained as {release['run']}"
        )
        for gate in gates:
            if not gate["name"].startswith(ASIDE):
                reported = "" if gate["required"] else " (reported)"
                table.add_row("", gate["name"], gate["verdict"] + reported, gate["detail"])
    return table


def _served(facts: Facts) -> Table:
    table = Table(title="What is served", box=box.SIMPLE, title_justify="left", show_header=False)
    for region, answer in facts.answers.items():
        edge = facts.site.edges[region]
        where = f"http://{edge.address}:{edge.http_port}/v2/models/{facts.task}/infer"
        table.add_row(region, f"{facts.task} version {answer.get('model_version')}", where)
    if facts.traffic is not None:
        table.add_row("live traffic", f"{facts.traffic.sent} requests", facts.traffic.line())
    up = sum(how == "up" for how in facts.targets.values())
    table.add_row("Prometheus", f"{up}/{len(facts.targets)} targets up", facts.site.prometheus_url)
    return table


def _urls(site: DictConfig) -> str:
    alerts = f"http://127.0.0.1:{site.ports.alertmanager}"
    query = urllib.parse.quote("lockgate_model_served_info")
    return "\n".join(
        (
            f"Runs and models   {site.mlflow_uri}",
            f"Metrics           {site.prometheus_url}/graph?g0.expr={query}&g0.tab=1",
            f"Alerts            {alerts}",
            *(
                f"HAProxy {region:9} http://{edge.address}:{edge.stats_port}/metrics"
                for region, edge in site.edges.items()
            ),
            "Next              scripts/site as deploy fab status; scripts/site down ends it all",
        )
    )
