"""The main job as a new user types it, killed on its way and run again until it ends.

One complete run is shared by every test here; it is also what the other site tests find served.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from serving.artifact.golden import differences, read_examples
from serving.triton.kserve import HEADER_LENGTH, decode_answer, encode_request, infer_path

pytestmark = [pytest.mark.site, pytest.mark.timeout(2400)]

REPO = Path(__file__).resolve().parents[2]
# Lines of the quickstart after which it is killed, one start each. Runs and releases that are
# killed in their middle have tests of their own.
KILL_AFTER = (
    r"lockgate train task=flights",
    r" s  us\S+ +load ",
)


@dataclass(frozen=True)
class Ended:
    code: int
    text: str


def quickstart(kill_after: str | None = None) -> Ended:
    """Start `scripts/quickstart`; SIGKILL its whole process group once a line matches."""
    process = subprocess.Popen(
        [REPO / "scripts/quickstart"],
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="")
        lines.append(line)
        if kill_after and re.search(kill_after, line):
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    return Ended(process.wait(), "".join(lines))


@pytest.fixture(scope="module")
def finished(box) -> Ended:
    """Output of the last of several killed and continued quickstarts."""
    for line in KILL_AFTER:
        killed = quickstart(kill_after=line)
        assert killed.code == -signal.SIGKILL, f"ended before {line!r}:\n{killed.text[-3000:]}"
    return quickstart()


def test_killed_anywhere_and_run_again_it_ends_well(finished: Ended) -> None:
    assert finished.code == 0, finished.text[-5000:]


def test_no_client_saw_a_failure_during_the_roll(finished: Ended) -> None:
    seen = re.search(r"clients: flights: (\d+) sent in [\d.]+ s, (\d+) ok", finished.text)
    assert seen, finished.text[-5000:]
    sent, good = map(int, seen.groups())
    assert sent == good > 100


def test_two_versions_answered_during_the_roll(finished: Ended) -> None:
    versions = re.search(r"answered by (v\d+): \d+, (v\d+): \d+", finished.text)
    assert versions and versions.group(1) != versions.group(2)


def test_every_region_answers_with_the_version_just_trained(finished: Ended, box) -> None:
    version = max(int(n) for n in re.findall(r"flights/(\d+) is in production", finished.text))
    store = Path(box.site.paths.store)
    example = read_examples(store / "flights" / str(version))[0]
    # Strict JSON has no NaN: an optional input that is left out is a missing value.
    known = {
        name: array
        for name, array in example.inputs.items()
        if array.dtype.kind != "f" or not np.isnan(array).any()
    }
    sent = encode_request(known, example.outputs, binary=False)
    for edge in box.site.edges.values():
        request = urllib.request.Request(
            f"http://{edge.address}:{edge.http_port}{infer_path('flights')}",
            sent.body,
            sent.headers,
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            body, length = reply.read(), reply.headers.get(HEADER_LENGTH)
        answer = decode_answer(body, length)
        assert answer.model_version == str(version)
        assert not differences(example, answer.outputs)


def test_the_model_is_better_than_the_base_rate_and_not_worse_than_the_baseline(
    finished: Ended,
) -> None:
    for gate in ("base_rate.auc", "base_rate.log_loss", "logistic_regression.auc"):
        assert re.search(rf"{re.escape(gate)}\s+pass\b", finished.text), gate


def test_every_region_gives_the_golden_answer(finished: Ended, box) -> None:
    for region in box.site.edges:
        answer = rf"^{region} was asked .*\n  and answered late_probability=\S+"
        assert re.search(answer, finished.text, re.MULTILINE), finished.text[-3000:]


def test_every_prometheus_target_is_up(finished: Ended) -> None:
    up = re.search(r"(\d+)/(\d+) targets up", finished.text)
    assert up and up.group(1) == up.group(2)
