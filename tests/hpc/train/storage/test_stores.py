"""Stores by one contract: a folder, fsspec's memory, and S3 where moto and s3fs are installed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from hpc.train import checkpoint
from hpc.train.checkpoint import Checkpoints
from hpc.train.retention import Retention
from hpc.train.storage import objects
from hpc.train.storage.copies import Copies
from hpc.train.storage.objects import ObjectStore
from hpc.train.storage.store import (
    CheckpointStore,
    FolderStore,
    StoreFault,
    open_checkpoint_store,
)
from tests.hpc.train.storage.drawn_lives import FILES, LAYOUT, content_of, damage


def memory(_: Path) -> CheckpointStore:
    file_system, root = objects.url_to_fs(f"memory://{uuid.uuid4().hex}/runs")
    return ObjectStore("memory://", file_system, root)


STORES: dict[str, Callable[[Path], CheckpointStore]] = {
    "folder": lambda home: FolderStore(home / "store"),
    "file url": lambda home: open_checkpoint_store(f"file://{home}/store"),
    "memory": memory,
}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a bucket at a server of moto's; credentials are in the environment alone."""
    if find_spec("moto") is None or find_spec("s3fs") is None:
        pytest.skip("moto and s3fs are not installed here: pip install 'moto[server,s3]' s3fs")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    made = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }
    before = {name: os.environ.get(name) for name in made}
    os.environ.update(made)
    boto3.client("s3").create_bucket(Bucket="checkpoints")
    yield "s3://checkpoints/team"
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@pytest.fixture(params=[*STORES, "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointStore:
    if request.param == "s3":
        return open_checkpoint_store(request.getfixturevalue("s3") + f"/{uuid.uuid4().hex}")
    return STORES[request.param](tmp_path)


def test_files_are_put_read_listed_and_removed(store: CheckpointStore, tmp_path: Path) -> None:
    assert store.sizes("run") == {}
    source = tmp_path / "source"
    for name, content in (("run/1/a", b"old"), ("run/1/a", b"newer"), ("run/1/deep/b", b"")):
        source.write_bytes(content)
        store.put(source, name)
    store.put(source, "runner/1/a")  # the neighbour, whose name begins alike
    assert store.sizes("run") == {"run/1/a": 5, "run/1/deep/b": 0}
    with store.open_file("run/1/a") as content:
        assert content.read(2) + content.read(10) == b"newer"
    store.remove(["run/1/a", "run/1/never"])
    assert store.sizes("run") == {"run/1/deep/b": 0}
    with pytest.raises(StoreFault):
        store.open_file("run/1/a").read(1)
    with pytest.raises(OSError, match="missing"):  # no fault of the store
        store.put(tmp_path / "missing", "run/1/c")


def test_a_checkpoint_goes_there_and_comes_back(store: CheckpointStore, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    checkpoints = Checkpoints(folder, Retention(1), "d", store=store)
    copies = Copies(checkpoints, store, 0, 1)
    for step in (10, 20):
        staging = checkpoints.staging(step)
        staging.mkdir(parents=True)
        for name in FILES:
            (staging / name).write_bytes(content_of(step, name))
        checkpoints.publish(staging, step, LAYOUT)
        copies.turn(copies.missing(step), step)
    assert {name.split("/")[1] for name in store.sizes("run")} == {"00000020"}
    damage(folder / "00000020", FILES[0])
    checkpoint.shutil.rmtree(folder / "00000010")
    assert checkpoints.newest() == 20
    assert (folder / "00000020" / FILES[0]).read_bytes() == content_of(20, FILES[0])


def test_a_bucket_that_is_not_there_is_a_fault_and_is_not_made(s3: str, tmp_path: Path) -> None:
    store = open_checkpoint_store("s3://no-such-bucket/x")
    (tmp_path / "file").write_text("content")
    with pytest.raises(StoreFault, match=r"(?i)bucket"):
        store.put(tmp_path / "file", "run/1/a")
    assert store.sizes("run") == {}


def test_a_folder_of_another_kind_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    store = FolderStore(tmp_path / "file")
    with pytest.raises(StoreFault, match=r"Not a directory|File exists"):
        store.put(tmp_path / "file", "run/1/a")


def test_half_of_a_file_in_a_folder_store_is_no_file(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    (tmp_path / "store" / "run" / "1").mkdir(parents=True)
    (tmp_path / "store" / "run" / "1" / ".partial-a").write_text("ha")  # of a killed copy
    assert store.sizes("run") == {}
    store.remove(["run/1/a"])
    assert not (tmp_path / "store" / "run").exists()
