"""`checkpoint_store`: what is an address, and the refusal of all else, credentials above all."""

from __future__ import annotations

import pytest

from conf.errors import ConfigError
from hpc.jobs.spec import store_address
from hpc.jobs.spec.store_address import check_store_address, check_store_package


@pytest.mark.parametrize(
    "address",
    [
        "/durable/runs",
        "file:///durable/my runs",
        "s3://bucket",
        "s3://bucket.of-team/a/b_c/",
        "gs://bucket/a",
        "abfs://container@account.dfs.core.windows.net/a",
    ],
)
def test_an_address_is_taken(address: str) -> None:
    check_store_address(address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("runs/here", "named by its whole path"),
        ("/durable/../etc", "named by its whole path"),
        ("file://runs", "named by its whole path"),
        ("", "named by its whole path"),
        ("s4://bucket/a", "no such kind of store. Nearest: s3"),
        ("memory://a", "no such kind of store"),  # gone with the job
        ("https://bucket/a", "no such kind of store"),
        ("s3://", "must be s3://BUCKET/PREFIX"),
        ("s3://bucket/../other", "must be s3://BUCKET/PREFIX"),
        ("s3://bucket/a\nb", "must be s3://BUCKET/PREFIX"),
        ("s3://AKIAKEY:hunter2@bucket/a", "written into the spec"),
        ("s3://AKIAKEY@bucket/a", "written into the spec"),
        ("s3://bucket/a?secret=hunter2", "written into the spec"),
        ("abfs://c:hunter2@account.net/a", "written into the spec"),
    ],
)
def test_what_is_no_address_is_refused_and_no_secret_is_repeated(address: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        check_store_address(address)
    assert "hunter2" not in str(refused.value) and "AKIA" not in str(refused.value)


def test_a_missing_package_is_named_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_address, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package s3fs.* pip install s3fs"):
        check_store_package("s3://bucket/a")
    check_store_package("/durable")
    monkeypatch.setattr(store_address, "find_spec", lambda name: name)
    check_store_package("s3://bucket/a")
