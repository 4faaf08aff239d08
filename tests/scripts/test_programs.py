"""The box as a value: complete, on loopback, in an order that can be started and stopped."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from conf.site_schema import Site
from scripts.box import hosts, slurm, users
from scripts.box.probe import http_ok
from scripts.box.program import File, Program
from scripts.box.programs import all_files, all_folders, all_programs, stop_order
from scripts.box.supervisor import quoted, site_conf


def test_every_port_is_on_loopback_and_nobody_elses(site: Site) -> None:
    ports = [port for program in all_programs(site) for port in program.ports]
    assert all(ip_address(port.address).is_loopback for port in ports)
    pairs = [(port.address, port.number) for port in ports]
    assert len(pairs) == len(set(pairs))


def test_every_need_is_met_by_a_program_before(site: Site) -> None:
    seen: set[str] = set()
    for program in all_programs(site):
        assert set(program.needs) <= seen, program.name
        seen.add(program.name)


def test_two_regions_of_two_hosts_with_a_triton_each(site: Site) -> None:
    names = [program.name for program in all_programs(site)]
    assert sorted(name for name in names if name.startswith("triton-")) == [
        "triton-use1-a", "triton-use1-b", "triton-usw2-a", "triton-usw2-b",
    ]  # fmt: skip
    assert {"haproxy-us-east", "haproxy-us-west"} <= set(names)


def test_what_others_need_stops_after_them(site: Site) -> None:
    waves = stop_order(all_programs(site))
    when = {program.name: k for k, wave in enumerate(waves) for program in wave}
    assert when["slurmd-n1"] < when["slurmctld"] < when["slurmdbd"] < when["mariadbd"]
    assert when["triton-use1-a"] < when["supervisor-use1-a"]
    assert sum(map(len, waves)) == len(all_programs(site))


def test_a_circle_of_needs_is_an_error() -> None:
    probe = http_ok("http://127.0.0.1:1/")
    circle = [Program("a", ("a",), probe, needs=("b",)), Program("b", ("b",), probe, needs=("a",))]
    with pytest.raises(ValueError, match="circle"):
        stop_order(circle)


def test_everything_lies_under_the_sites_root(site: Site) -> None:
    files = [file.path for file in all_files(site, all_programs(site))]
    for path in [*files, *(folder.path for folder in all_folders(site))]:
        assert path.is_relative_to(site.root)


def test_who_owns_what(site: Site) -> None:
    owners = {folder.path: folder.owner for folder in all_folders(site)}
    assert owners[site.paths.runs] == "lg-train"
    assert owners[site.paths.store] == "lg-release"
    assert owners[site.paths.journal] == "lg-deploy"
    # An identity may use its key; it cannot put another one in its place.
    assert owners[site.paths.release_key.parent] == "root"
    for host in site.hosts:
        assert owners[hosts.home(site, host) / "etc"] == "root"
        assert owners[hosts.home(site, host) / "model-repository"] == "lg-verify"
        assert owners[hosts.home(site, host) / "packages"] == "lg-verify"
        assert owners[hosts.home(site, host) / "staging"] == "lg-host"


def section(conf: str, name: str) -> str:
    return conf.split(f"[program:{name}]")[1].split("\n\n")[0]


def test_a_changed_file_concerns_only_the_programs_that_read_it(site: Site) -> None:
    changed = replace(site, slurm=replace(site.slurm, kill_wait_s=site.slurm.kill_wait_s + 1))
    before = site_conf(site, all_programs(site))
    after = site_conf(changed, all_programs(changed))
    for name in ("slurmctld", "slurmd-n1", "slurmd-n2"):
        assert section(before, name) != section(after, name)
    for name in ("munged", "mariadbd", "haproxy-us-east", "mlflow", "supervisor-use1-a"):
        assert section(before, name) == section(after, name)


def test_nothing_starts_before_what_it_needs(site: Site) -> None:
    conf = site_conf(site, all_programs(site))
    assert "autostart=true" not in conf
    assert "[program:triton-use1-a]" not in conf  # its host's own supervisor runs it


def test_only_the_serving_group_speaks_to_a_hosts_supervisor(site: Site) -> None:
    conf = hosts.supervisord_conf(site, "use1-a", hosts.triton(site, "use1-a"))
    assert "chmod=0770\nchown=lg-triton:lg-serving\n" in conf
    assert set(users.MEMBERS["serving"]) == {"verify", "triton"}
    folders = {folder.path: folder for folder in all_folders(site)}
    control = folders[hosts.home(site, "use1-a") / "run" / "triton"]
    assert (control.owner, control.group, control.mode) == ("lg-triton", "lg-serving", 0o2750)
    assert "umask=007" in conf


def test_supervisors_environment_is_quoted() -> None:
    assert quoted({"B": "two words", "A": "50%"}) == 'A="50%%",B="two words"'
    with pytest.raises(ValueError, match="cannot carry"):
        quoted({"A": 'a "quote"'})


def test_slurm_files_are_written_for_clients_too(site: Site) -> None:
    written = {file.path for file in all_files(site, all_programs(site))}
    assert site.paths.slurm_conf in written
    assert all(isinstance(file, File) for file in slurm.files(site))
