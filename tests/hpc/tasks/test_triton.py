"""The packages in a real tritonserver: golden answers, batches, and an error only where due."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from serving.artifact import golden
from serving.triton.ephemeral import EphemeralServer, serve_packages
from serving.triton.grpc_client import InferError, ModelClient
from tests.hpc.tasks.conftest import Exported

REPO = Path(__file__).resolve().parents[3]
SERVING_ENV = REPO / ".venv-serve"

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def servers(
    flights_exported: Exported, lm_exported: Exported, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, ModelClient]]:
    if not SERVING_ENV.exists():
        pytest.skip(f"{SERVING_ENV} is not there: scripts/setup")
    work = tmp_path_factory.mktemp("triton")
    packages = []
    for name, exported in (("flights", flights_exported), ("lm", lm_exported)):
        (work / name).mkdir()
        packages.append(EphemeralServer(name, exported.candidate, name, work / name))
    with serve_packages(packages, SERVING_ENV, "127.0.0.1", start_timeout_s=120) as running:
        clients = [one.client for one in running]
        yield dict(zip(("flights", "lm"), clients, strict=True))


@pytest.fixture
def examples(flights_exported: Exported, lm_exported: Exported) -> dict[str, tuple]:
    exported = {"flights": flights_exported, "lm": lm_exported}
    return {name: golden.read_examples(one.candidate) for name, one in exported.items()}


@pytest.mark.parametrize("name", ["flights", "lm"])
def test_golden_examples(name: str, servers: dict[str, ModelClient], examples: dict) -> None:
    for example in examples[name]:
        answer = servers[name].infer(example.inputs)
        assert golden.differences(example, answer) == []


def test_requests_that_triton_batches_get_their_own_answers(
    servers: dict[str, ModelClient], examples: dict
) -> None:
    """Good and bad ones at once: each good one gets its golden answer, each bad one its error."""
    bad = {**examples["flights"][0].inputs, "distance": np.array([[np.nan]], np.float32)}

    def ask(number: int) -> list[str]:
        if number % 7 == 3:
            with pytest.raises(InferError, match=r"distance\[0\] is nan; it must be a number"):
                servers["flights"].infer(bad)
            return []
        example = examples["flights"][number % len(examples["flights"])]
        return golden.differences(example, servers["flights"].infer(example.inputs))

    with ThreadPoolExecutor(16) as pool:
        assert [found for found in pool.map(ask, range(300)) if found] == []


def test_bad_text_is_answered_with_a_sentence(servers: dict[str, ModelClient]) -> None:
    none = np.array([0], np.int32)
    for text, said in ((b"", "text is empty"), (b"\xff", "not UTF-8"), (b"x" * 70_000, "at most")):
        with pytest.raises(InferError, match=said):
            servers["lm"].infer({"text": np.array([text], object), "max_new_tokens": none})


def test_declared_interface_is_the_served_one(
    servers: dict[str, ModelClient], flights_exported: Exported
) -> None:
    found = servers["flights"].metadata()
    assert [one["name"] for one in found["outputs"]] == ["late_probability"]
    assert servers["flights"].max_batch() == 1024 and servers["lm"].max_batch() == 0
