"""The punisher's plan, costs and comparison; none of it touches a site."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.box.identity import REPO
from scripts.train_punish import comparison, faults
from scripts.train_punish.drawn_faults import (
    DOWN_S,
    KINDS,
    NODE_DOWN_S,
    drawn_faults,
    duration_s,
    fault_kinds,
)
from scripts.train_punish.faults import HEAL, INJECT
from scripts.train_punish.trace import Injected, Look, cost_rows, costs

SEEDS = st.integers(0, 2**32)


@given(SEEDS, st.lists(st.sampled_from(KINDS), min_size=1, unique=True))
def test_a_plan_is_its_seeds_and_has_each_kind_in_each_round(seed, kinds) -> None:
    plan = drawn_faults(kinds, 20.0, 600.0, seed)
    assert plan == drawn_faults(kinds, 20.0, 600.0, seed)
    times = [fault.at_s for fault in plan]
    assert times == sorted(times) and all(0 < at < 600 for at in times)
    for fault in plan:
        shortest, longest = NODE_DOWN_S if fault.kind == "node" else DOWN_S
        assert shortest <= fault.down_s <= longest
    for start in range(0, len(plan) - len(kinds) + 1, len(kinds)):
        assert {fault.kind for fault in plan[start : start + len(kinds)]} == set(kinds)


def test_the_gaps_have_the_mean_and_the_spread_of_an_exponential_distribution() -> None:
    times = [0.0, *(fault.at_s for fault in drawn_faults(KINDS, 20.0, 200_000.0, 1))]
    gaps = [after - before for before, after in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(20, rel=0.05)
    assert spread == pytest.approx(20, rel=0.1)


def test_every_kind_can_be_injected_and_all_but_a_killed_rank_healed() -> None:
    assert set(INJECT) == set(KINDS)
    assert set(HEAL) == set(KINDS) - {"rank"}


@pytest.mark.parametrize(("text", "seconds"), [("20s", 20), ("10m", 600), ("90", 90), ("1h", 3600)])
def test_a_time_is_typed_with_its_unit(text, seconds) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "-5s", "ten", "25h", "nan", "1e9", "5 s", "٣s"])
def test_what_is_no_time_is_refused(text) -> None:
    with pytest.raises(ValueError, match="20s, 10m or 1h"):
        duration_s(text)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    assert fault_kinds("disk, rank,disk") == ("disk", "rank")
    with pytest.raises(ValueError, match="'switch' is no kind of fault; there are rank, node"):
        fault_kinds("rank,switch")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "--mtbf", "soon"], "'soon' is no time"),
        (["train", "--kinds", "rank,switch"], "'switch' is no kind of fault"),
        (["train", "--steps", "-1"], "--steps -1: choose"),
        (["serve"], "'serve' cannot be punished; type scripts/punish train"),
        (["train"], "type scripts/site up"),
    ],
)
def test_a_mistake_ends_with_a_sentence_and_2(tmp_path, words, sentence) -> None:
    done = subprocess.run(
        [str(REPO / "scripts" / "punish"), *words], capture_output=True, text=True, timeout=60,
        env={"PATH": "/usr/bin:/bin", "LOCKGATE_SITE": str(tmp_path / "nowhere")},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


# Attempt 1 logs steps 1 to 30 with a checkpoint at 25; attempt 2 goes on from it at 60 s.
FIRST = [Look(10, 1, 0, 0, 0.0), Look(12, 1, 0, 10, 11.9), Look(20, 1, 0, 30, 19.9)]
SECOND = [
    Look(60, 2, 25, 30, 19.9),  # not rewound yet
    Look(65, 2, 25, 25, 18.0),
    Look(70, 2, 25, 26, 69.5),
]


def test_a_killed_rank_costs_the_steps_after_the_checkpoint() -> None:
    killed, mlflow = Injected("rank", "rank 1", 20.5), Injected("mlflow", "mlflow", 30.0)
    found = costs([*FIRST, *SECOND], [killed, mlflow])
    assert [(cost.comebacks, cost.steps_lost) for cost in found] == [(1, 5), (0, 0)]
    assert [cost.trained_again_s for cost in found] == [49.0, 39.5]
    assert cost_rows(["rank", "disk"], found) == [
        ("rank", "1", "1", "49.0 / 49.0", "5 / 5"),
        ("disk", "0", "0", "-", "-"),
    ]


def test_a_fault_that_the_run_rides_out_costs_nothing() -> None:
    found = costs(FIRST, [Injected("slurmctld", "slurmctld", 15.0)])
    assert [(cost.comebacks, cost.trained_again_s, cost.steps_lost) for cost in found] == [
        (0, 4.899999999999999, 0)
    ]


def test_an_attempt_that_was_killed_before_its_first_step_loses_none() -> None:
    third = [Look(100, 3, 25, 30, 19.9), Look(110, 3, 25, 26, 109.0)]
    faults = [Injected("rank", "rank 1", 20.5), Injected("node", "n2", 62.0)]
    found = costs([*FIRST, SECOND[0], *third], faults)
    assert [(cost.comebacks, cost.steps_lost) for cost in found] == [(1, 5), (1, 0)]
    assert [cost.trained_again_s for cost in found] == [88.5, 47.0]


def test_a_run_that_does_not_come_back_trains_never_again() -> None:
    (cost,) = costs(FIRST, [Injected("rank", "rank 0", 21.0)])
    assert (cost.comebacks, cost.trained_again_s) == (0, None)


def test_an_end_without_a_killed_rank_or_node_is_due_to_what_was_broken_then() -> None:
    (cost,) = costs([*FIRST, *SECOND], [Injected("slurmctld", "slurmctld", 20.5)])
    assert (cost.comebacks, cost.steps_lost) == (1, 5)


LINES = [
    {"step": 1, "time": 10.0, "loss": 0.1, "lr": 1e-3, "step_seconds": 0.02, "peak_host_bytes": 1},
    {"step": 2, "time": 11.0, "loss": 0.3, "lr": 1e-3, "step_seconds": 0.03, "peak_host_bytes": 2},
    {"step": 2, "time": 11.5, "validation_loss": 0.25, "note": "text", "odd": None},
]


def test_times_are_no_part_of_a_curve_and_one_bit_is() -> None:
    other = [{**line, "time": line["time"] + 5} for line in LINES]
    other[0] |= {"step_seconds": 9.0, "peak_host_bytes": 7}
    first, second = (comparison.curve_points(lines) for lines in (LINES, other))
    assert first == second and first[1] == []
    assert ("loss", 1) in first[0] and ("lr", 2) in first[0] and ("odd", 2) in first[0]
    (bits,) = struct.unpack("<q", struct.pack("<d", 0.3))
    (nearest,) = struct.unpack("<d", struct.pack("<q", bits + 1))
    other[1]["loss"] = nearest
    # As metrics.jsonl has it: the bit survives the file.
    read = json.loads(json.dumps(other))
    assert comparison.differences(first[0], comparison.curve_points(read)[0]) == [("loss", 2)]


def test_a_missing_step_and_one_that_is_there_twice_are_found() -> None:
    points, _ = comparison.curve_points(LINES)
    missing, _ = comparison.curve_points(LINES[1:])
    assert comparison.differences(points, missing) == [("loss", 1), ("lr", 1)]
    _, faults = comparison.curve_points([*LINES, LINES[0]])
    assert faults == ["loss of step 1 is there twice", "lr of step 1 is there twice"]


def test_a_point_of_mlflow_that_was_rewound_or_is_missing_is_found() -> None:
    expected = comparison.mlflow_points(LINES)
    assert ("step_seconds", 2, 11_000) in expected and ("validation_loss", 2, 11_500) in expected
    assert not any(key in ("odd", "note") for key, _, _ in expected)
    there = dict(expected)
    del there["loss", 1, 10_000]
    there["loss", 3, 12_000] = (0.5).hex()
    assert comparison.differences(expected, there) == [("loss", 1, 10_000), ("loss", 3, 12_000)]
    assert comparison.difference_lines("points", [("loss", 1), "x", "y", "z"]) == [
        "points: loss 1; x; y and 1 more"
    ]
    assert comparison.difference_lines("points", []) == []


def can_mount(folder: Path) -> bool:
    made = subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], capture_output=True)
    return made.returncode == 0 and not subprocess.run(["umount", folder]).returncode


def test_a_full_disk_is_full_is_emptied_and_what_the_run_wrote_stays(site, tmp_path) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    if os.geteuid() != 0 or not can_mount(checkpoints):
        pytest.skip("no file system can be mounted here")
    target = faults.PunishedJob(site, "1", checkpoints)
    assert faults.fill_disk(target, 0.0) is None, "a folder of the machine's own disk is left alone"
    faults.mount_small_disk(checkpoints, "root")
    try:
        (checkpoints / "00000025").mkdir()
        (checkpoints / "00000025" / "weights").write_text("first")
        what = faults.fill_disk(target, 0.0)
        with pytest.raises(OSError, match="No space left"):
            (checkpoints / "00000025" / "second").write_bytes(bytes(1 << 16))
        faults.empty_disk(target, str(what))
        (checkpoints / "latest").write_text("00000025")
        assert faults.fill_disk(target, 0.0) == what
    finally:
        faults.keep_and_unmount(checkpoints)
    assert not checkpoints.is_mount()
    assert (checkpoints / "00000025" / "weights").read_text() == "first"
    assert (checkpoints / "latest").read_text() == "00000025"
    assert not (checkpoints / faults.FILLER).exists()
    assert [path.name for path in tmp_path.iterdir() if "kept" in path.name] == []


def write_tensors(path: Path, values: dict[str, list[float]]) -> Path:
    """A file of safetensors as its format is described, without the library."""
    header, data = {}, b""
    for name, numbers in values.items():
        part = struct.pack(f"<{len(numbers)}f", *numbers)
        offsets = [len(data), len(data) + len(part)]
        header[name] = {"dtype": "F32", "shape": [len(numbers)], "data_offsets": offsets}
        data += part
    text = json.dumps({**header, "__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_one_bit_of_one_weight_is_found(tmp_path) -> None:
    weights = {"a": [1.0, 2.0], "b": [3.0]}
    first = comparison.tensors(write_tensors(tmp_path / "1", weights))
    # In another order in the file.
    same = comparison.tensors(write_tensors(tmp_path / "2", dict(reversed(weights.items()))))
    assert comparison.differences(first, same) == []
    flipped = bytearray((tmp_path / "1").read_bytes())
    flipped[-1] ^= 1
    (tmp_path / "3").write_bytes(flipped)
    assert comparison.differences(first, comparison.tensors(tmp_path / "3")) == ["b"]
    fewer = comparison.tensors(write_tensors(tmp_path / "4", {"a": [1.0, 2.0]}))
    assert comparison.differences(first, fewer) == ["b"]
