"""The end of `scripts/quickstart`: what was trained, how good it is, what is served where."""

from __future__ import annotations

import http.client
import json
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from conf.credentials import PROMETHEUS, own_account
from conf.site_schema import Site
from scripts.loadtest.plan import Result
from serving.artifact.golden import GoldenExample, differences
from serving.triton.http_client import post_infer
from serving.triton.kserve import HttpAnswer, encode_request, infer_path

SHOWN_VALUES = 3  # of one tensor
REQUEST_TIMEOUT_S = 60


@dataclass
class QuickstartResult:
    """Everything that the steps found, in their order."""

    site: Site
    releases: list[dict[str, Any]] = field(default_factory=list)
    """Reports of `lockgate release --json`."""
    traffic: Result | None = None
    """Outcome of the clients during the last rollout; None where there were none."""
    examples: Sequence[GoldenExample] = ()
    """Golden examples of the last version."""
    answers: dict[str, HttpAnswer] = field(default_factory=dict)
    """Region -> answer to the shown example."""
    targets: dict[str, str] = field(default_factory=dict)
    """Scrape URL -> health, in Prometheus' view."""

    @property
    def model(self) -> str:
        """Name of the served model."""
        return str(self.releases[-1]["model"])

    @property
    def version(self) -> int:
        """The version that was released last."""
        return int(self.releases[-1]["version"])

    @property
    def example(self) -> GoldenExample:
        """The golden example that is shown: the one with the most text in its outputs."""
        return max(self.examples, key=_text_length)

    def url(self, region: str) -> str:
        """Inference URL of the model at the HAProxy of `region`."""
        return self.site.edges[region].url + infer_path(self.model)


def query_region(result: QuickstartResult, region: str) -> HttpAnswer:
    """The answer of one region's HAProxy to the shown golden example. Raises TritonError."""
    edge, example = result.site.edges[region], result.example
    connection = http.client.HTTPConnection(edge.address, edge.http_port, REQUEST_TIMEOUT_S)
    request = encode_request(example.inputs, example.outputs, binary=True)
    try:
        return post_infer(connection, infer_path(result.model), request)
    finally:
        connection.close()


def scrape_targets(site: Site) -> dict[str, str]:
    """Scrape URL -> health of every target of the site's Prometheus."""
    account = own_account(site.paths.passwords, PROMETHEUS)
    headers = {"Authorization": account.header} if account else {}
    url = f"{site.prometheus_url}/api/v1/targets"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as reply:
        targets = json.load(reply)["data"]["activeTargets"]
    return {target["scrapeUrl"]: target["health"] for target in targets}


def print_report(console: Console, result: QuickstartResult) -> int:
    """Print the closing tables; returns 0, or 1 where something is not as it must be."""
    console.print()
    console.print(_releases(result))
    console.print(_served(result))
    inputs = _shown(result.example.inputs)
    for region, answer in result.answers.items():
        console.print(f"[bold]{region}[/bold] was asked", end=" ")
        outputs = _shown(answer.outputs)
        console.print(f"{inputs}\n  and answered {outputs}", markup=False, soft_wrap=True)
    console.print(_urls(result.site))
    wrong = problems(result)
    for problem in wrong:
        console.print(f"[bold red]not as it must be:[/bold red] {problem}")
    return 1 if wrong else 0


def problems(result: QuickstartResult) -> list[str]:
    """Sentences about what a person should not overlook; empty when all is well."""
    found = []
    for region, answer in result.answers.items():
        version = answer.model_version
        if version != str(result.version):
            found.append(f"{region} answered with version {version}, not {result.version}")
        wrong = differences(result.example, answer.outputs)
        found += [f"{region}: {sentence}" for sentence in wrong]
    if result.traffic is not None and result.traffic.failed:
        found.append(
            f"{result.traffic.failed} requests failed during the roll: {result.traffic.line()}"
        )
    found += [
        f"Prometheus target {url} is {health}"
        for url, health in result.targets.items()
        if health == "down"
    ]
    return found


def _releases(result: QuickstartResult) -> Table:
    """A line for each gate that measured a number; the others are counted."""
    table = Table(title="What was trained and released", box=box.SIMPLE, title_justify="left")
    for name in ("version", "gate", "verdict", "value", "limit", "detail"):
        table.add_column(name, overflow="fold")
    for release in result.releases:
        gates = release["gates"]
        title = f"{release['model']} {release['version']}"
        passed = sum(gate["verdict"] == "pass" for gate in gates)
        counted = f"{passed} of {len(gates)} gates"
        table.add_row(title, counted, "pass", "", "", f"trained as {release['run']}")
        for gate in gates:
            if gate["value"] is not None:
                reported = "" if gate["required"] else " (reported)"
                table.add_row(
                    "", gate["name"], gate["verdict"] + reported,
                    _number(gate["value"]), _number(gate["threshold"]), gate["detail"],
                )  # fmt: skip
    return table


def _served(result: QuickstartResult) -> Table:
    table = Table(title="What is served", box=box.SIMPLE, title_justify="left", show_header=False)
    for region, answer in result.answers.items():
        version = f"{result.model} version {answer.model_version}"
        table.add_row(region, version, result.url(region))
    if result.traffic is not None:
        table.add_row("live traffic", f"{result.traffic.sent} requests", result.traffic.line())
    up = sum(health == "up" for health in result.targets.values())
    count = f"{up}/{len(result.targets)} targets up"
    table.add_row("Prometheus", count, result.site.prometheus_url)
    return table


def _urls(site: Site) -> str:
    query = urllib.parse.quote("lockgate_model_served_info")
    return "\n".join(
        (
            f"Runs and models   {site.mlflow_uri}",
            f"  log in as       {site.users.observe}, with its password in {site.paths.passwords}/",
            f"Metrics           {site.prometheus_url}/graph?g0.expr={query}&g0.tab=1",
            f"Alerts            http://127.0.0.1:{site.ports.alertmanager}",
            *(f"HAProxy {region:9} {edge.metrics_url}" for region, edge in site.edges.items()),
            "Next              scripts/site as deploy fab status; scripts/site down ends it all",
        )
    )


def _text_length(example: GoldenExample) -> int:
    """Bytes of text in the outputs of an example; 0 for an example of numbers."""
    texts = (array for array in example.outputs.values() if array.dtype == object)
    return sum(len(text) for array in texts for text in array.ravel())


def _shown(tensors: Mapping[str, np.ndarray]) -> str:
    """`origin='JFK', distance=1089`: the first values of every tensor, text as text."""
    return ", ".join(f"{name}={_values(array)}" for name, array in tensors.items())


def _values(array: np.ndarray) -> str:
    values = array.ravel()[:SHOWN_VALUES].tolist()
    shown = [
        repr(value.decode(errors="replace")) if isinstance(value, bytes) else _number(value)
        for value in values
    ]
    if array.size == 1:
        return shown[0]
    return f"[{', '.join(shown)}{', ...' if array.size > SHOWN_VALUES else ''}]"


def _number(value: float | None) -> str:
    """Five digits, or all of a large number; "" for none."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.5g}"
