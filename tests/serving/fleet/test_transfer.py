"""What is sent and run on a host, to the letter, and how its answers are read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from serving.fleet.inventory import Host, Ssh
from serving.fleet.ssh import transfer
from serving.fleet.ssh.connection import wrapped

SSH = Ssh("lg-host", 2222, Path("/keys/deploy key"), Path("/keys/known"), 5, 60)


def host(root: Path) -> Host:
    return Host("a", "127.0.0.11", "us-east", root, "/usr/bin/python3", "restart", 1, 2)


def run(command: str) -> str:
    return subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def disk(tmp_path):
    """A host's disk with package 1 of toy in it, as an unprivileged owner would have it."""
    home = tmp_path / "a host"
    package = home / "packages" / "toy" / "1"
    (package / "version").mkdir(parents=True)
    (package / "version" / "model.py").write_text("one")
    (package / "manifest.json").write_text("{}")
    for name in ("staging", "model-repository"):
        (home / name).mkdir()
    return host(home)


def test_rsync_trusts_pinned_keys_only_and_compares_bytes():
    argv = transfer.rsync_argv(
        Path("/store/toy/2"), host(Path("/srv")), SSH, Path("/srv/staging/toy-2"),
        Path("/srv/packages/toy/1"), 500,
    )  # fmt: skip
    assert argv[-2:] == ["/store/toy/2/", "lg-host@127.0.0.11:/srv/staging/toy-2/"]
    assert {"--checksum", "--delete", "--bwlimit=500", "--copy-dest=/srv/packages/toy/1"} <= set(
        argv
    )
    shell = argv[argv.index("--rsh") + 1]
    for option in ("StrictHostKeyChecking=yes", "UserKnownHostsFile=/keys/known", "BatchMode=yes",
                   "GlobalKnownHostsFile=/dev/null", "-F none",
                   "-i '/keys/deploy key'"):  # fmt: skip
        assert option in shell
    assert not any(part.startswith("--link-dest") for part in argv)


def test_the_host_judges_with_its_own_verifier_and_signers():
    assert transfer.verify_command(host(Path("/srv")), Path("/srv/staging/toy-2"), "toy", 2) == (
        "/usr/bin/python3 -I /srv/etc/verify.py /srv/staging/toy-2 "
        "--allowed-signers /srv/etc/allowed_signers --model toy --version 2 --json"
    )


def test_remote_commands_end_on_the_host():
    assert wrapped("echo 'x'", 60) == """timeout --kill-after=5 60 sh -c 'echo '"'"'x'"'"''"""


def test_facts_of_a_host(disk):
    run(transfer.install_command(disk, "toy", 1))
    run(transfer.persist_command(disk, "toy", "name: \"toy\"\n  x: '1'\n"))
    facts = transfer.parse_facts(run(transfer.facts_command(disk, "toy")))
    assert facts.packages == {1: "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}
    assert facts.installed == (1,)
    assert facts.config == "name: \"toy\"\n  x: '1'\n"
    assert facts.disk_free > 0 and facts.shm_free > 0


def test_facts_of_a_host_that_has_nothing(disk):
    facts = transfer.parse_facts(run(transfer.facts_command(disk, "other")))
    assert (facts.packages, facts.installed, facts.config) == ({}, (), None)


def test_an_installed_version_is_a_read_only_copy_without_links(disk):
    for _ in range(2):
        run(transfer.install_command(disk, "toy", 1))
    model = disk.repository / "toy" / "1" / "model.py"
    assert model.read_text() == "one" and model.stat().st_nlink == 1
    assert oct((disk.repository / "toy" / "1").stat().st_mode)[-3:] == "555"


def test_installing_again_does_not_even_touch_the_folder(disk):
    # A changed ctime makes Triton reload a version that it already serves.
    run(transfer.install_command(disk, "toy", 1))
    before = (disk.repository / "toy" / "1").stat().st_ctime_ns
    run(transfer.install_command(disk, "toy", 1))
    assert (disk.repository / "toy" / "1").stat().st_ctime_ns == before


def test_an_installed_version_that_differs_is_replaced(disk):
    run(transfer.install_command(disk, "toy", 1))
    target = disk.repository / "toy" / "1"
    target.chmod(0o755)
    (target / "extra.py").write_text("evil")
    run(transfer.install_command(disk, "toy", 1))
    assert [path.name for path in target.iterdir()] == ["model.py"]
    assert list(disk.staging.iterdir()) == []


def test_accepting_makes_read_only_and_replaces_a_half_removed_package(disk):
    staged = disk.staging / "toy-2" / "version"
    staged.mkdir(parents=True)
    (staged / "model.py").write_text("two")
    (disk.packages / "toy" / "2" / "rest").mkdir(parents=True)
    run(transfer.accept_command(disk, "toy", 2))
    accepted = disk.packages / "toy" / "2"
    assert [path.name for path in accepted.iterdir()] == ["version"]
    assert oct(accepted.stat().st_mode)[-3:] == "555"
    assert not staged.parent.exists()


def test_without_a_config_the_model_leaves_the_repository(disk):
    run(transfer.install_command(disk, "toy", 1))
    run(transfer.persist_command(disk, "toy", "x"))
    for _ in range(2):
        run(transfer.persist_command(disk, "toy", None))
    assert list(disk.repository.iterdir()) == [] and list(disk.staging.iterdir()) == []


def facts(**changes) -> transfer.Facts:
    values = {
        "packages": {},
        "installed": (),
        "config": None,
        "disk_free": 10 << 30,
        "shm_free": 1 << 30,
    }
    return transfer.Facts(**{**values, **changes})


@pytest.mark.parametrize(
    ("have", "sentence"),
    [
        (facts(disk_free=600 << 20), "600 MiB of disk are free; the package takes 100 MiB"),
        (facts(shm_free=10 << 20), "10 MiB of /dev/shm are free, 64 MiB are wanted"),
    ],
)
def test_a_full_host_is_refused_before_anything_is_sent(have, sentence):
    with pytest.raises(transfer.NoRoom, match=sentence):
        transfer.check_room("a", have, 100 << 20, transfer.TransferLimits(512 << 20, 64 << 20))


def test_served_and_newest_packages_stay():
    have = facts(packages=dict.fromkeys(range(1, 8), "x"), installed=(3, 4, 7))
    assert transfer.to_prune(have, (3, 4), keep=2) == ((1, 2, 5), (7,))
    assert transfer.to_prune(have, (6, 7), keep=0) == ((1, 2, 3, 4, 5), (3, 4))


def test_read_only_trees_are_removed(disk):
    run(transfer.install_command(disk, "toy", 1))
    run(transfer.prune_command(disk, "toy", (1,), (1,)))
    assert not (disk.packages / "toy" / "1").exists()
