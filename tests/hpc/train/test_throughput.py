"""What makes a step faster or thriftier changes no number; what a step costs is in its line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc.train import metrics_log

pytestmark = pytest.mark.slow

ON = [
    "activation_checkpointing=true",
    "prefetch_batches=3",
    "gradient_accumulation_steps=2",
    "+deepspeed.zero_optimization.overlap_comm=true",
    "+deepspeed.zero_optimization.reduce_bucket_size=500",
    "+deepspeed.communication_data_type=fp32",
]
OFFLOADED = [*ON, "+deepspeed.zero_optimization.offload_optimizer.device=cpu"]
OFF = ["prefetch_batches=0", "gradient_accumulation_steps=2"]
EXACT = ["optim=adamw", "precision=fp32", "gradient_clipping=1.0", "steps=4", "cluster.mem_gb=1"]


def lines(run: Path) -> list[dict[str, float]]:
    return metrics_log.read_metrics(run / "metrics.jsonl")


@pytest.mark.parametrize(
    ("stage", "on", "off_by"),
    [
        (2, ON, 0),
        pytest.param(3, ON, 0, marks=pytest.mark.full),
        # DeepSpeed sums the norm that it clips by in another order there.
        pytest.param(2, OFFLOADED, 1e-6, marks=pytest.mark.full),
    ],
)
def test_a_step_with_everything_on_has_the_numbers_of_one_with_nothing(
    new_run: Callable[..., Path], attempt: Callable, stage: int, on: list[str], off_by: float
) -> None:
    plain = new_run("plain", *EXACT, *OFF, f"zero_stage={stage}")
    ended = attempt(plain)
    assert ended.codes == [0, 0], ended.log
    fast = new_run("fast", *EXACT, *on, f"zero_stage={stage}")
    ended = attempt(fast)
    assert ended.codes == [0, 0], ended.log
    curves = [[line["loss"] for line in lines(run) if "loss" in line] for run in (plain, fast)]
    assert len(curves[0]) == 4
    assert curves[0] == pytest.approx(curves[1], rel=off_by, abs=0)
    weights = [run / "checkpoints" / "00000004" / "model.safetensors" for run in (plain, fast)]
    assert off_by or weights[0].read_bytes() == weights[1].read_bytes()

    first = next(line for line in lines(plain) if "loss" in line)
    parts = ("data_wait", "forward", "backward", "optimizer", "communication")
    seconds = [first[f"{part}_seconds"] for part in parts]
    assert all(one >= 0 for one in seconds)
    assert first["forward_seconds"] > 0 < first["backward_seconds"]
    assert sum(seconds) <= first["step_seconds"] + 1e-4  # each second in one part
    assert first["gradient_norm"] > 0
    assert 0 < first["peak_rss_bytes"] < 2**33
    assert first["peak_rss_share"] == pytest.approx(first["peak_rss_bytes"] / 2**30, abs=0.001)
    assert "mfu" not in first  # no claim on a CPU
    stalls = [line for line in lines(plain) if "checkpoint_stall_seconds" in line]
    assert [(line["step"], line["checkpoint_stall_seconds"] > 0) for line in stalls] == [(4, True)]
    json.dumps(first)


@pytest.mark.full
def test_compiled_by_inductor_it_learns_and_its_weights_keep_their_names(
    new_run: Callable[..., Path], attempt: Callable
) -> None:
    run = new_run("compiled", *EXACT, "compile=true")
    ended = attempt(run)
    assert ended.codes == [0, 0], ended.log
    plain = new_run("plain", *EXACT)
    assert attempt(plain).codes == [0, 0]
    curves = [[line["loss"] for line in lines(one) if "loss" in line] for one in (run, plain)]
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    exported = [(one / "candidate" / "exported.txt").read_text() for one in (run, plain)]
    assert exported[0] == exported[1]
