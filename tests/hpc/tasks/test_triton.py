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
from tests.confined import PATIENCE, confinement
from tests.hpc.tasks.conftest import KINDS, Exported

REPO = Path(__file__).resolve().parents[3]
SERVING_ENV = REPO / ".venv-serve"

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def packages(request: pytest.FixtureRequest) -> dict[str, Exported]:
    return {name: request.getfixturevalue(f"{name}_exported") for name in KINDS}


@pytest.fixture(scope="module")
def servers(
    packages: dict[str, Exported],
) -> Iterator[dict[str, ModelClient]]:
    if not SERVING_ENV.exists():
        pytest.skip(f"{SERVING_ENV} is not there: scripts/setup")
    wanted = [EphemeralServer(name, one.candidate, name) for name, one in packages.items()]
    with confinement() as here, serve_packages(wanted, SERVING_ENV, here, PATIENCE) as clients:
        yield dict(zip(packages, clients, strict=True))


@pytest.fixture
def examples(packages: dict[str, Exported]) -> dict[str, tuple]:
    return {name: golden.read_examples(one.candidate) for name, one in packages.items()}


@pytest.mark.parametrize("name", KINDS)
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


def test_declared_interface_is_the_served_one(servers: dict[str, ModelClient]) -> None:
    outputs = {
        name: [one["name"] for one in server.metadata()["outputs"]]
        for name, server in servers.items()
    }
    assert outputs["flights"] == ["late_probability"]
    assert outputs["wine"] == outputs["phrases"] == ["probabilities", "label"]
    assert outputs["digits"] == ["logits"]
    assert [servers[name].max_batch() for name in ("flights", "lm", "digits")] == [1024, 0, 128]
