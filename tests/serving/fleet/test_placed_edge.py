"""Models with hosts of their own, at a real edge: where requests go, and a host that is drained."""

from __future__ import annotations

import difflib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings

from conf.schema import build
from conf.site_placement import ModelPlacement, hosts_of
from conf.site_schema import SiteHost
from serving.fleet.haproxy.edge import DRAIN, MAINT, READY
from serving.fleet.haproxy.edge_config import haproxy_cfg
from serving.fleet.ssh.ssh_driver import SshDriver
from tests.serving.fleet.edge_bed import REGION
from tests.serving.fleet.edge_hosts import HostsBed, running_hosts, until
from tests.serving.fleet.test_placed_rollouts import placements

pytestmark = pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
SHARED = {"big": {"hosts": ["b", "w"]}}
ALONE = {"big": {"isolation": "alone", "hosts": ["b", "w"]}}


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostsBed]:
    with running_hosts(tmp_path_factory.mktemp("edge")) as made:
        yield made


def answering(bed: HostsBed) -> tuple[set[str], set[str]]:
    """The hosts that answer for a placed model, and for one that is not."""
    return bed.answering("big"), bed.answering("toy")


def test_a_host_that_models_share_is_drained_once_for_all(bed: HostsBed) -> None:
    bed.place(SHARED)
    assert answering(bed) == ({"b"}, {"a", "b"})
    assert bed.edge.receivers("big") == {"b", "w"}
    assert bed.edge.receivers("toy") == {"a", "b", "w"}
    asked = bed.edge.states()["b"].requests
    bed.answering("big", times=3)
    assert bed.edge.states()["b"].requests == asked + 3, "a host's counts are of all its models"
    bed.edge.set("b", DRAIN)
    assert answering(bed) == ({"w"}, {"a"}), "another region's host of the model stands in"
    bed.edge.set("b", MAINT)
    assert answering(bed) == ({"w"}, {"a"})
    bed.edge.set("w", MAINT)
    assert bed.answering("big") == {"503"}
    bed.kill()
    bed.start()
    assert answering(bed) == ({"503"}, {"a"}), "and that holds after a restart"
    for host in ("b", "w"):
        bed.edge.set(host, READY)
    assert answering(bed) == ({"b"}, {"a", "b"})


def test_a_model_that_is_alone_shares_neither_its_hosts_nor_theirs(bed: HostsBed) -> None:
    bed.edge.set("b", DRAIN)
    bed.place(ALONE)
    assert answering(bed) == ({"w"}, {"a"}), "a new placement leaves the states as they are"
    bed.edge.set("b", READY)
    assert answering(bed) == ({"b"}, {"a"})
    assert (bed.edge.receivers("big"), bed.edge.receivers("toy")) == ({"b", "w"}, {"a"})
    bed.edge.set("a", MAINT)
    assert answering(bed) == ({"b"}, {"503"}), "the alone hosts do not stand in"
    bed.edge.set("a", READY)
    bed.place({})
    assert answering(bed) == ({"a", "b"}, {"a", "b"})


def test_a_region_whose_hosts_are_all_alone_is_still_found_healthy(bed: HostsBed) -> None:
    """The proof of a new config, which `place` waits for, is a request that names no model."""
    bed.place({"big": {"isolation": "alone", "hosts": ["a", "b", "w"]}})
    assert bed.answering("big") == {"a", "b"}
    bed.place({})


def test_the_checks_of_a_host_count_for_each_of_its_models(bed: HostsBed) -> None:
    bed.place(SHARED)
    bed.hosts["b"].live = 500
    until(lambda: answering(bed) == ({"w"}, {"a"}))
    bed.hosts["b"].live = 200
    until(lambda: answering(bed) == ({"b"}, {"a", "b"}))


def test_a_host_may_go_only_where_each_of_its_models_keeps_one(bed: HostsBed) -> None:
    """`a` shares only `toy`; `b` is the one host of `big` here, whatever else takes traffic."""
    for placement, peers in (({}, (1, 1)), (SHARED, (1, 0)), (ALONE, (0, 0))):
        driver = SshDriver.__new__(SshDriver)
        driver.fleet = SimpleNamespace(
            placement=build(dict[str, ModelPlacement], placement),
            region_of=lambda host: SimpleNamespace(edges=[SimpleNamespace(name=REGION)]),
        )
        driver._edges = {REGION: bed.edge}
        assert tuple(driver.peers_up(SimpleNamespace(name=n)) for n in "ab") == peers


@pytest.mark.parametrize("placement", [SHARED, ALONE])
def test_the_whole_config_is_valid_and_grpc_and_copies_follow(
    placement: dict, bed: HostsBed, tmp_path: Path
) -> None:
    site = replace(bed.site, placement=build(dict[str, ModelPlacement], placement))
    text = haproxy_cfg(site, REGION)
    (tmp_path / "haproxy.cfg").write_text(text)
    done = subprocess.run(
        ["haproxy", "-c", "-f", str(tmp_path / "haproxy.cfg")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for backend, followed in (
        ("triton:big", "triton"), ("triton_last:big", "triton_last"),
        ("triton_grpc:big", "triton"), ("triton_grpc_last:big", "triton_last"),
        ("shadow:big", "triton"),
    ):  # fmt: skip
        lines = text.split(f"\nbackend {backend}\n")[1].split("\nbackend ")[0].splitlines()
        tracked = [line for line in lines if "  server b " in line]
        assert len(tracked) == 1 and f"track {followed}/b" in tracked[0], backend
        assert not [line for line in lines if "  server a " in line], backend


def test_without_a_placement_not_one_line_is_there_for_it(bed: HostsBed) -> None:
    """What a placement adds is all that differs: rules and backends of its models."""
    plain = haproxy_cfg(replace(bed.site, placement={}), REGION).splitlines()
    assert not [line for line in plain if "weight" in line or "triton:" in line]
    placed = build(dict[str, ModelPlacement], SHARED)
    text = haproxy_cfg(replace(bed.site, placement=placed), REGION).splitlines()
    gone = [line[2:] for line in difflib.ndiff(plain, text) if line.startswith("- ")]
    assert gone and all("queue(" in line for line in gone)


@settings(deadline=None)
@given(drawn=placements())
def test_each_model_is_sent_to_its_hosts_and_no_other(bed: HostsBed, drawn) -> None:
    """By the text: what a backend's servers with a weight are is where its requests go."""
    placement, names = drawn
    hosts = {name: SiteHost(f"127.0.8.{n}", REGION) for n, name in enumerate(names, 1)}
    site = replace(bed.site, hosts=hosts, edges={REGION: bed.site.edges[REGION]})
    text = haproxy_cfg(replace(site, placement=placement), REGION)

    def weighed(backend: str) -> set[str]:
        (part,) = [one for one in text.split("\nbackend ") if one.startswith(f"{backend}\n")]
        lines = [line.split() for line in part.splitlines() if line.startswith("  server ")]
        return {line[1] for line in lines if line[-2:] != ["weight", "0"]}

    for kind in ("triton", "triton_last", "triton_grpc", "triton_grpc_last"):
        for model in placement:
            assert weighed(f"{kind}:{model}") == set(hosts_of(placement, model, names))
        free = set(hosts_of(placement, "any other", names))
        assert weighed(kind) == (free or set(names))
