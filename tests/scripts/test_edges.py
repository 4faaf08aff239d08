"""The edges of a box: what `up` makes for them, and keeps."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from pathlib import Path

import pytest

from conf import compose
from conf.site_schema import Site, SiteEdgeSsh, site_config
from scripts.box import edge
from serving.edge_host.names import ROUTES, STATES


@pytest.fixture
def site(tmp_path: Path) -> Site:
    user = pwd.getpwuid(os.getuid()).pw_name
    made = site_config(compose("site", [f"site.root={tmp_path}", f"site.users.deploy={user}"]))
    for one in made.edges.values():
        one.state.mkdir(parents=True)
    return made


def test_the_files_that_haproxy_starts_with_are_made_once(site: Site) -> None:
    before = os.umask(0o077)
    try:
        edge.ensure_state(site)
    finally:
        os.umask(before)
    first, second = (one.state for one in site.edges.values())
    assert {path.name for path in first.iterdir()} == {ROUTES, STATES}
    assert {path.stat().st_mode & 0o777 for path in first.iterdir()} == {0o644}
    (first / ROUTES).write_text("toy 7:0:0\n")
    (second / STATES).unlink()
    edge.ensure_state(site)
    assert (first / ROUTES).read_text() == "toy 7:0:0\n"
    assert (second / STATES).exists()


def test_a_link_in_the_place_of_a_file_is_not_followed(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (site.edges["us-east"].state / ROUTES).symlink_to(target)
    edge.ensure_state(site)
    assert not target.exists()


def test_an_edge_on_another_machine_is_none_of_the_box(site: Site) -> None:
    way = SiteEdgeSsh("10.0.0.7", 22, "lockgate-edge", Path("/etc/lockgate-edge"))
    edges = {**site.edges, "us-west": replace(site.edges["us-west"], ssh=way)}
    away = replace(site, edges=edges)
    assert [program.name for program in edge.programs(away)] == ["haproxy-us-east"]
    assert site.edges["us-west"].state not in [folder.path for folder in edge.folders(away)]
