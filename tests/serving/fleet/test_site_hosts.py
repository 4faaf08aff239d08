"""`fab add`, `remove`, `replace`: one line of the site's file, and a site that is still valid."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import ConfigError
from serving.fleet.bootstrap.site_file import with_host, with_replaced, without_host
from serving.fleet.cli import site_hosts
from serving.fleet.errors import FleetConfigError
from tests.serving.fleet.bed import REPO

BOX = (REPO / "conf/site/box.yaml").read_text()
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True)


def hosts(text: str) -> dict:
    return yaml.safe_load(text)["hosts"]


def changed_lines(before: str, after: str) -> set[str]:
    return set(before.split("\n")) ^ set(after.split("\n"))


@given(name=NAMES, last=st.integers(1, 254))
def test_an_added_host_that_is_removed_leaves_the_file_as_it_was(name: str, last: int) -> None:
    address = f"10.0.0.{last}"
    added = with_host(BOX, name, address, "us-east")
    assert hosts(added) == {**hosts(BOX), name: {"address": address, "region": "us-east"}}
    assert len(changed_lines(BOX, added)) == 1
    assert without_host(added, name) == BOX


def test_a_replaced_host_keeps_its_place_its_region_and_its_comment() -> None:
    text = "hosts:\n  a: {address: 10.0.0.1, region: us-east, port: 23}  # rack 4\nedges: {}\n"
    assert with_replaced(text, "a", "b", "10.0.0.2") == (
        "hosts:\n  b: {address: 10.0.0.2, region: us-east, port: 23}  # rack 4\nedges: {}\n"
    )


def test_the_last_host_of_a_region_stays() -> None:
    text = without_host(BOX, "use1-b")
    with pytest.raises(FleetConfigError, match="only host of us-east"):
        without_host(text, "use1-a")


@pytest.mark.parametrize(
    "text",
    [
        "hosts: {a: {address: 10.0.0.1, region: us-east}, b: {address: 10.0.0.2, region: us-east}}",
        "hosts:\n  a:\n    address: 10.0.0.1\n    region: us-east\n  b: {address: 10.0.0.2, region: us-east}\n",  # noqa: E501
    ],
)
def test_a_list_in_another_form_is_left_alone_and_the_line_is_named(text: str) -> None:
    with pytest.raises(FleetConfigError, match="Write there"):
        with_replaced(text, "a", "c", "10.0.0.3")


@pytest.fixture
def site_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a site of its own."""
    (tmp_path / "lockgate.yaml").write_text("name: mine\nsite: mine\n")
    (tmp_path / "conf/site").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "conf/site/mine.yaml"
    path.write_text(BOX)
    return path


def test_the_projects_site_is_edited_and_the_next_commands_are_named(site_file: Path) -> None:
    lines = site_hosts.add("", "use1-c", "127.0.0.15", "us-east")
    assert str(site_file) in lines[0] and "fab bootstrap use1-c" in lines[1]
    assert hosts(site_file.read_text())["use1-c"]["address"] == "127.0.0.15"
    site_hosts.replace("", "use1-c", "use1-d", "127.0.0.16")
    site_hosts.remove("", "use1-d")
    assert site_file.read_text() == BOX


@pytest.mark.parametrize(
    ("name", "address", "region", "reason"),
    [
        ("use1-c", "127.0.0.15", "eu-west", "US"),
        ("use1-c", "127.0.0.15", "us-north", "edge"),
        ("use1-c", "127.0.0.11", "us-east", "127.0.0.11"),
        ("use1-c", "not an address", "us-east", "neither"),
        ("../x", "127.0.0.15", "us-east", "name"),
        ("use1-a", "127.0.0.15", "us-east", "fab replace use1-a"),
    ],
)
def test_a_host_that_the_site_cannot_have_leaves_the_file(
    site_file: Path, name: str, address: str, region: str, reason: str
) -> None:
    with pytest.raises((FleetConfigError, ConfigError), match=reason):
        site_hosts.add("", name, address, region)
    assert site_file.read_text() == BOX
