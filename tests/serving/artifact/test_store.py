"""The store: a version is there whole or not at all, never changes, and is found by name."""

import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.artifact import signature, store
from serving.artifact.store import StoreError
from serving.artifact.verify import verify_package

from .conftest import Keys, make_manifest, write_files


def test_a_published_version_verifies_and_is_read_only(
    publish: Callable[..., Path], keys: Keys
) -> None:
    path = publish(3)
    assert verify_package(path, keys.allowed, "flights", 3).version == 3
    for found in (path, *path.rglob("*")):
        assert not stat.S_IMODE(found.stat().st_mode) & 0o222, found


def test_versions_are_listed_in_order_of_their_numbers(
    publish: Callable[..., Path], tmp_path: Path
) -> None:
    for number in (10, 2, 1):
        publish(number)
    assert store.versions(tmp_path / "store", "flights") == [1, 2, 10]
    assert store.models(tmp_path / "store") == ["flights"]
    assert store.get(tmp_path / "store", "flights").manifest.version == 10


def test_a_version_is_never_replaced(publish: Callable[..., Path]) -> None:
    path = publish(3)
    before = {found: found.stat().st_mtime_ns for found in path.rglob("*")}
    with pytest.raises(StoreError, match="flights/3 is already in"):
        publish(3)
    assert before == {found: found.stat().st_mtime_ns for found in path.rglob("*")}


def test_an_unknown_name_is_answered_with_the_nearest(
    publish: Callable[..., Path], tmp_path: Path
) -> None:
    for number in (1, 2, 9):
        publish(number)
    root = tmp_path / "store"
    with pytest.raises(StoreError, match="no model 'flihgts'; it has flights"):
        store.get(root, "flihgts")
    with pytest.raises(StoreError, match="no flights/8; nearest: flights/1, flights/2, flights/9"):
        store.get(root, "flights", 8)
    with pytest.raises(StoreError, match="no model"):
        store.get(root, "../store/flights")
    with pytest.raises(StoreError, match="no versions yet"):
        store.get(tmp_path / "empty", "flights")


def test_previous_is_what_the_manifest_marks_and_the_store_still_has(
    publish: Callable[..., Path], tmp_path: Path
) -> None:
    publish(1)
    publish(2, previous=1)
    publish(3, previous=7)
    root = tmp_path / "store"
    assert [store.previous(root, "flights", n) for n in (1, 2, 3)] == [None, 1, None]


def test_a_run_is_found_again(publish: Callable[..., Path], tmp_path: Path) -> None:
    publish(1)
    found = store.find_run(tmp_path / "store", "flights", "run-1")
    assert found is not None and found.manifest.version == 1
    assert store.find_run(tmp_path / "store", "flights", "run-2") is None


def test_leftovers_of_a_killed_release_are_no_versions(
    publish: Callable[..., Path], tmp_path: Path
) -> None:
    root = tmp_path / "store"
    write_files(store.stage(root, "half"))
    (root / "flights/7").mkdir(parents=True)
    (root / "reports/1").mkdir(parents=True)
    assert (store.models(root), store.versions(root, "flights")) == ([], [])
    again = store.stage(root, "half")
    assert list(again.iterdir()) == []


KILLED = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    from serving.artifact import store
    from serving.artifact.manifest import parse_manifest
    root, staged, stop = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    calls = 0
    def counted(original):
        def call(*arguments, **named):
            global calls
            calls += 1
            if calls == stop:
                os._exit(9)  # as a kill -9 or a power cut between two steps
            return original(*arguments, **named)
        return call
    for name in ("mkdir", "write_bytes", "chmod", "rename"):
        setattr(Path, name, counted(getattr(Path, name)))
    os.fsync = counted(os.fsync)
    manifest = parse_manifest(Path(sys.argv[4]).read_bytes())
    store.publish(root, staged, manifest, Path(sys.argv[5]).read_bytes())
    print(calls)
""")


def test_killed_between_any_two_steps_there_is_a_whole_version_or_none(
    tmp_path: Path, keys: Keys
) -> None:
    made = make_manifest(write_files(tmp_path / "model"))
    (tmp_path / "m").write_bytes(made.to_bytes())
    (tmp_path / "s").write_bytes(signature.sign(made.to_bytes(), keys.ours))
    outcomes = []
    for stop in range(1, 100):
        root = tmp_path / f"store{stop}"
        staged = write_files(store.stage(root, "release"))
        command = [sys.executable, "-c", KILLED, str(root), str(staged), str(stop)]
        done = subprocess.run(
            [*command, str(tmp_path / "m"), str(tmp_path / "s")],
            env={**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])},
        )
        present = store.versions(root, "flights")
        outcomes.append(bool(present))
        if present:
            assert verify_package(root / "flights/3", keys.allowed, "flights", 3).version == 3
        if done.returncode == 0:
            break
        assert done.returncode == 9
        if not present:  # the same release again, from the start
            staged = write_files(store.stage(root, "release"))
            store.publish(root, staged, made, (tmp_path / "s").read_bytes())
            assert verify_package(root / "flights/3", keys.allowed, "flights", 3).version == 3
    assert done.returncode == 0 and False in outcomes
    assert outcomes == sorted(outcomes), "a version must not vanish once it is there"
