"""The quickstart: a demonstration of any task, and a closing report that names no task."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from conf import ConfigError
from conf.schema import from_config
from conf.site_schema import Site
from scripts.quickstart import QuickstartConfig, main, quickstart_config
from scripts.quickstart_report import QuickstartResult, print_report, problems
from serving.artifact.golden import GoldenExample
from serving.triton.kserve import HttpAnswer


def test_a_task_without_a_demonstration_of_its_own_trains_one_version() -> None:
    assert quickstart_config("anybodys").versions == ((),)
    assert quickstart_config("flights").versions == (("seed=1",), ("seed=2",))


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        ({"versions": [], "requests_per_s": 1.0}, "quickstart.versions=.*at least one"),
        ({"versions": [[]], "requests_per_s": 0.0}, "quickstart.requests_per_s=0"),
        ({"versions": [[1]], "requests_per_s": 1.0}, r"quickstart.versions\[0\]\[0\] is 1"),
    ],
)
def test_a_demonstration_that_cannot_be_is_refused(node: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        from_config(QuickstartConfig, node, "quickstart")


def test_an_unknown_task_is_answered_with_the_nearest(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.root.parent.mkdir(exist_ok=True)
    assert main(["--task", "flihgts"]) == 2
    assert "Nearest: flights" in capsys.readouterr().out


def text(value: str) -> np.ndarray:
    return np.array([value.encode()], dtype=object)


def numbers(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def finished(
    site: Site, *examples: GoldenExample, version: int = 7, **changed: Any
) -> QuickstartResult:
    """A quickstart whose regions gave the shown example's outputs, where `changed` has no other."""
    gates = [
        {"name": "contents", "verdict": "pass", "required": True, "value": None,
         "threshold": None, "detail": "whole"},
        {"name": "auc", "verdict": "pass", "required": False, "value": 0.71, "threshold": 0.5,
         "detail": "better"},
    ]  # fmt: skip
    release = {"model": "toy", "version": 7, "run": "toy-1", "gates": gates}
    result = QuickstartResult(site=site, releases=[release], examples=examples)
    outputs = {**result.example.outputs, **changed}
    result.answers = {region: HttpAnswer(str(version), outputs) for region in site.edges}
    result.targets = {"http://127.0.0.1:1/metrics": "up"}
    return result


def printed(result: QuickstartResult) -> tuple[int, str]:
    out = io.StringIO()
    code = print_report(Console(file=out, width=160), result)
    return code, out.getvalue()


def test_text_that_the_fleet_wrote_is_shown_whole(site: Site) -> None:
    short = GoldenExample({"text": text("W")}, {"completion": text("")}, 0.0, 0.0)
    written = "a long [bold] sentence " * 12
    long = GoldenExample({"text": text("Canal, n.")}, {"completion": text(written)}, 0.0, 0.0)
    code, shown = printed(finished(site, short, long))
    assert code == 0
    for region in site.edges:
        assert (
            f"{region} was asked text='Canal, n.'\n  and answered completion={written!r}\n" in shown
        )


def test_numbers_are_shown_and_gates_with_a_number(site: Site) -> None:
    example = GoldenExample({"x": numbers(1, 2, 3, 4)}, {"y": numbers(0.25)}, 1e-6, 0.0)
    code, shown = printed(finished(site, example))
    assert code == 0
    assert "us-east was asked x=[1, 2, 3, ...]\n  and answered y=0.25\n" in shown
    assert "2 of 2 gates" in shown
    assert "pass (reported)" in shown and "0.71" in shown
    assert "contents" not in shown
    assert "1/1 targets up" in shown


def test_what_a_person_should_not_overlook(site: Site) -> None:
    example = GoldenExample({"x": numbers(1)}, {"y": numbers(0.25)}, 1e-6, 0.0)
    assert problems(finished(site, example)) == []
    old = finished(site, example, version=6)
    assert problems(old)[0] == "us-east answered with version 6, not 7"
    wrong = finished(site, example, y=numbers(0.75))
    assert problems(wrong)[0].startswith("us-east: y is off by 0.5")
    wrong.targets = {"http://h/metrics": "down"}
    code, shown = printed(wrong)
    assert code == 1
    assert "not as it must be: Prometheus target http://h/metrics is down" in shown
