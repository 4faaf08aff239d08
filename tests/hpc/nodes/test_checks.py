"""Each check of a node, fit and not fit."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpc.nodes.checks import (
    NodeCheck,
    check_clock,
    check_devices,
    check_folder,
    check_product,
    check_shared_storage,
)


@pytest.mark.parametrize(
    ("asked", "visible", "fault"),
    [
        (0, "", ""),
        (2, "0,1", ""),
        (1, "GPU-3f", ""),
        (2, "0", "1 GPUs are visible, 2 were asked"),
        (1, "", "0 GPUs are visible, 1 were asked"),
    ],
)
def test_devices(asked: int, visible: str, fault: str) -> None:
    assert check_devices(asked, {"CUDA_VISIBLE_DEVICES": visible}).fault == fault


def test_a_folder_with_room_that_is_written_leaves_nothing(tmp_path: Path) -> None:
    found = check_folder("scratch", tmp_path, 1)
    assert (found.fault, found.found.endswith(" free")) == ("", True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_room_or_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    full = check_folder("scratch", tmp_path, 1 << 60)
    assert full.fault.startswith(f"{tmp_path} has ")
    assert full.fault.endswith("less than 1152921504.6 GB")
    gone = check_folder("scratch", tmp_path / "gone", 1)
    assert gone.fault == f"{tmp_path}/gone cannot be written: No such file or directory"


def test_shared_storage_is_written_and_its_clock_is_this_machines(tmp_path: Path) -> None:
    speed, clock = check_shared_storage(tmp_path)
    assert (speed.fault, clock.fault) == ("", "")
    assert speed.found.endswith(" MB/s")
    assert list(tmp_path.iterdir()) == []
    speed, clock = check_shared_storage(tmp_path / "gone")
    assert "cannot be written" in speed.fault
    assert clock == NodeCheck("clock", "not compared")


@pytest.mark.parametrize(
    ("skew_s", "fault"),
    [
        (0.3, ""),
        (-4.9, ""),
        (61.0, "the clock is +61.0 s off the shared storage's"),
        (-7.0, "the clock is -7.0 s off the shared storage's"),
    ],
)
def test_a_clock(skew_s: float, fault: str) -> None:
    assert check_clock(skew_s).fault == fault


def test_a_storage_whose_clock_is_ahead_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() - 3600)
    monkeypatch.setattr("hpc.nodes.checks.time", behind)
    assert "the clock is -36" in check_shared_storage(tmp_path)[1].fault


def test_a_product_is_right_and_timed() -> None:
    found, speed = check_product(0)
    assert found.fault == ""
    assert speed > 0
