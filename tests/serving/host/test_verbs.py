"""A host's verbs, run as sshd runs them: the installed files, isolated, on a host of its own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.artifact import store
from serving.artifact.signature import allowed_signer
from serving.host.home import settings_json
from serving.host.installation import host_files
from serving.triton.model_config import instances_in, with_instances
from tests.serving.fleet import bed as beds


@dataclass(frozen=True)
class HostUnderTest:
    """One host's disk, and a controller's way to it."""

    root: Path
    store: Path
    key: Path

    def command(self, line: str, nonce: str | None = None) -> subprocess.CompletedProcess[str]:
        """What sshd does with the forced command for a client that wanted `line`."""
        environment = {
            "PATH": "/usr/bin:/bin",
            "SSH_ORIGINAL_COMMAND": line if nonce is None else f"lockgate {nonce} {line}",
        }
        return subprocess.run(
            [sys.executable, "-I", "-B", f"{self.root}/etc/host", str(self.root), "command"],
            env=environment, capture_output=True, text=True, timeout=120, cwd="/",
        )  # fmt: skip

    def answer(self, line: str) -> dict:
        nonce = secrets.token_hex(16)
        done = self.command(line, nonce)
        assert done.returncode == 0, done.stderr
        marker, document = done.stdout.split("\n", 1)
        assert marker == f"lockgate-answer {nonce}"
        return json.loads(document)

    def done(self, line: str) -> dict:
        answer = self.answer(line)
        assert answer["ok"], answer
        return answer["content"]

    def refused(self, line: str) -> str:
        answer = self.answer(line)
        assert not answer["ok"], answer
        assert answer["detail"]
        return answer["refused"]

    def publish(self, version: int, key: Path | None = None, **options: object) -> Path:
        return beds.publish(self.store, key or self.key, version, float(version), **options)

    def send(self, version: int) -> Path:
        """Put the package of the store into staging, as rsync does for lg-host."""
        self.done(f"prepare toy {version} --rollback")
        staged = self.root / "staging" / f"toy-{version}"
        subprocess.run(
            ["rsync", "-r", "--links", "--checksum", "--delete",
             f"{self.store}/toy/{version}/", f"{staged}/"], check=True,
        )  # fmt: skip
        return staged

    def accept(self, version: int, options: str = "") -> dict:
        self.send(version)
        return self.done(f"accept toy {version} {options}".strip())


@pytest.fixture
def host(tmp_path: Path) -> HostUnderTest:
    root = tmp_path / "a host"
    for folder in ("etc", "staging", "packages", "model-repository", "state", "run"):
        (root / folder).mkdir(parents=True)
    for name, text in host_files().items():
        path = root / "etc" / "host" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    public = beds.make_key(tmp_path / "release")
    beds.make_key(tmp_path / "foreign")
    (root / "etc" / "allowed_signers").write_text(allowed_signer(public))
    (root / "etc" / "host.json").write_text(
        settings_json(
            grpc_target=f"unix:{root}/run/grpc.sock:1", verify_socket=root / "run" / "verify.sock",
            verify_interval_s=60, triton=["/bin/true"],
            restart=["/bin/sh", "-c", f"echo restarted > '{root}/run/restarted'"],
            http=("127.0.0.1", beds.free_port()), agent=("127.0.0.1", beds.free_port()),
            golden_interval_s=1, golden_timeout_s=5,
            logs=["/usr/bin/tail", "-n", "{lines}", f"{root}/run/triton.log"],
            max_instances=4,
        )
    )  # fmt: skip
    made = HostUnderTest(root, tmp_path / "store", tmp_path / "release")
    made.publish(1)
    return made


@pytest.mark.parametrize(
    "line",
    [
        "", "id", "bash -i", "sh -c 'touch /tmp/x'", "scp -t /", "rsync --server . /",
        "/usr/lib/openssh/sftp-server", "lockgate", "lockgate facts toy", "lockgate xyz facts toy",
    ],
)  # fmt: skip
def test_what_is_no_request_is_not_answered(host, line):
    done = host.command(line)
    assert done.returncode == 2 and done.stdout == ""
    assert "answers fab and nothing else" in done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "shell toy", "facts", "facts toy 1", "facts ../../etc", "facts toy;id", "facts $(id)",
        "facts 'toy'", "accept toy 0", "accept toy 01", "accept toy -1", "accept toy 1x",
        "accept toy 1 --force", "serve toy 1,,2", "serve toy", "persist all 1", "prune toy 1 -1",
        "revoke abc", "accept toy 1 --fence x", "facts toy --timeout 0",
        "facts toy --timeout 99999", "facts  toy", "accept a/b 1", "accept toy\n 1",
        "scale toy", "scale toy 0", "scale toy -1", "scale toy 65", "scale toy 2x",
        "scale toy ../2", "scale toy 2 3", "scale ../toy 2", "scale all 2", "scale toy default",
        "scale toy 1e1",
    ],
)  # fmt: skip
def test_a_word_outside_the_rules_is_refused(host, line):
    before = sorted(host.root.rglob("*"))
    assert host.refused(line) == "request"
    assert sorted(host.root.rglob("*")) == before


def test_a_package_is_accepted_once_and_is_then_ready(host):
    manifest = store.get(host.store, "toy", 1).manifest
    assert host.done("prepare toy 1") == {"ready": None}
    assert host.accept(1) == {"digest": manifest.digest}
    package = host.root / "packages" / "toy" / "1"
    assert oct(package.stat().st_mode)[-3:] == "555"
    assert oct((package / "version" / "model.py").stat().st_mode)[-3:] == "444"
    assert list((host.root / "staging").iterdir()) == []
    assert host.done("prepare toy 1") == {"ready": manifest.digest}
    facts = host.done("facts toy")
    assert facts["models"]["toy"]["packages"] == {"1": manifest.digest}
    assert facts["models"]["toy"]["highest"] == 1
    assert facts["disk_free"] > 0 and facts["shm_free"] > 0


def test_an_interrupted_transfer_is_kept_and_those_of_other_versions_are_not(host):
    host.publish(2)
    host.send(1)
    host.done("prepare toy 1")
    assert (host.root / "staging" / "toy-1" / "version" / "weights.bin").exists()
    host.done("prepare toy 2")
    assert [path.name for path in (host.root / "staging").iterdir()] == ["toy-2"]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("flip", "changed-file"), ("missing", "missing-file"), ("extra", "extra-file"),
        ("link", "odd-file"), ("pipe", "odd-file"), ("unsigned", "unsigned"),
        ("nothing", "no-package"), ("foreign", "foreign-signature"),
    ],
)  # fmt: skip
def test_what_is_not_the_signed_package_is_not_accepted_and_leaves_nothing(host, how, reason):
    if how == "foreign":
        host.publish(2, host.key.with_name("foreign"))
    else:
        host.publish(2)
    staged = host.send(2)
    weights = staged / "version" / "weights.bin"
    for path in (staged, staged / "version", weights):
        path.chmod(0o755)
    if how == "flip":
        weights.write_bytes(b"\1" * (1 << 20))
    elif how == "missing":
        weights.unlink()
    elif how == "extra":
        (staged / "version" / "sitecustomize.py").write_text("")
    elif how == "link":
        weights.unlink()
        weights.symlink_to("/etc/passwd")
    elif how == "pipe":
        os.mkfifo(staged / "version" / "pipe")
    elif how == "unsigned":
        (staged / "manifest.json.sig").unlink()
    elif how == "nothing":
        subprocess.run(["rm", "-rf", str(staged)], check=True)
    assert host.refused("accept toy 2") == reason
    assert list((host.root / "packages").iterdir()) == []
    assert list((host.root / "staging").iterdir()) == []
    assert host.done("facts toy")["models"]["toy"]["highest"] == 0


def test_a_package_is_not_accepted_in_anothers_name(host):
    host.publish(2)
    subprocess.run(["cp", "-r", str(host.store / "toy" / "1"), str(host.root / "staging/toy-2")])
    assert host.refused("accept toy 2") == "wrong-version"


def test_an_older_signed_version_passes_only_as_a_rollback(host):
    host.publish(2)
    host.accept(2)
    assert host.refused("prepare toy 1") == "older-version"
    host.send(1)
    assert host.refused("accept toy 1") == "older-version"
    host.accept(1, "--rollback")
    assert host.done("facts toy")["models"]["toy"]["highest"] == 2
    for verb in ("persist", "serve"):
        assert host.refused(f"{verb} toy 1") == "older-version"
    host.done("persist toy 1 --rollback")
    host.done("persist toy 1,2")


def test_a_lower_fence_changes_nothing(host):
    host.accept(1, "--fence 7")
    for line in ("prepare toy 1", "accept toy 1", "install toy 1", "serve toy 1", "persist toy 1",
                 "withdraw toy", "restart", "prune toy none 0", f"revoke {'0' * 64}"):  # fmt: skip
        assert host.refused(f"{line} --fence 6") == "fence", line
        assert host.refused(line) == "fence", line
    assert host.done("facts toy")["fence"] == 7
    host.done("install toy 1 --fence 7")
    host.done("install toy 1 --fence 8")
    assert host.refused("install toy 1 --fence 7") == "fence"


def test_an_installed_version_is_a_read_only_copy_that_stays_untouched(host):
    host.accept(1)
    host.done("install toy 1")
    folder = host.root / "model-repository" / "toy" / "1"
    model = folder / "model.py"
    assert model.read_text() == beds.MODEL_PY and model.stat().st_nlink == 1
    assert oct(folder.stat().st_mode)[-3:] == "555"
    # A changed ctime makes Triton reload a version that it already serves.
    before = folder.stat().st_ctime_ns
    host.done("install toy 1")
    assert folder.stat().st_ctime_ns == before


def test_a_changed_copy_is_seen_and_replaced(host):
    host.accept(1)
    host.done("persist toy 1")
    folder = host.root / "model-repository" / "toy" / "1"
    folder.chmod(0o755)
    model = folder / "model.py"
    model.chmod(0o644)
    model.write_text("import os")
    (folder / "extra.py").write_text("evil")
    found = host.done("verify all")
    assert not found["ok"]
    (fault,) = found["faults"][:1]
    assert (fault["model"], fault["version"], fault["where"]) == ("toy", 1, "repository")
    assert fault["reason"] == "changed-file"
    record = json.loads((host.root / "state" / "verified.json").read_text())
    assert record == found and record["at"].endswith("Z")
    host.done("install toy 1")
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.py", "transform.json", "weights.bin",
    ]  # fmt: skip
    assert host.done("verify toy") == {"ok": True, "faults": []}


def test_a_changed_package_is_neither_installed_nor_copied_from(host):
    host.accept(1)
    model = host.root / "packages" / "toy" / "1" / "version" / "model.py"
    model.chmod(0o644)
    model.write_text("import os")
    for line in ("install toy 1", "persist toy 1", "serve toy 1"):
        assert host.refused(line) == "changed-file"
    assert list((host.root / "model-repository").iterdir()) == []
    assert host.done("verify toy")["faults"][0]["where"] == "packages"
    assert host.done("prepare toy 1") == {"ready": None}
    assert not any((host.root / "staging" / "toy-1").iterdir())


def test_the_config_is_built_here_and_a_changed_one_is_seen(host):
    host.publish(2)
    host.accept(1)
    host.accept(2)
    host.done("persist toy 1,2")
    path = host.root / "model-repository" / "toy" / "config.pbtxt"
    text = path.read_text()
    assert "versions: 1" in text and "versions: 2" in text
    before = path.stat().st_mtime_ns
    host.done("persist toy 1,2")
    assert path.stat().st_mtime_ns == before
    path.write_text(text.replace("max_batch_size: 8", "max_batch_size: 4"))
    assert host.done("verify toy")["faults"][0]["reason"] == "changed-config"
    host.done("persist toy none")
    host.done("persist toy none")
    assert list((host.root / "model-repository").iterdir()) == []


def test_the_instances_are_the_hosts_own_in_every_config_that_it_builds(host):
    host.publish(2)
    host.accept(1)
    host.done("persist toy 1")
    path = host.root / "model-repository" / "toy" / "config.pbtxt"
    packaged = path.read_text()
    host.done("scale toy 3")
    assert instances_in(path.read_text()) == 3 and "versions: 1" in path.read_text()
    before = path.stat().st_mtime_ns
    host.done("scale toy 3")
    assert path.stat().st_mtime_ns == before
    host.accept(2)
    host.done("persist toy 1,2")
    assert instances_in(path.read_text()) == 3
    assert host.done("verify toy") == {"ok": True, "faults": []}
    path.write_text(with_instances(path.read_text(), 4))
    assert host.done("verify toy")["faults"][0]["reason"] == "changed-config"
    host.done("persist toy 1 --rollback")
    host.done("scale toy packaged")
    assert path.read_text() == packaged
    assert host.done("facts toy")["max_instances"] == 4


def test_no_more_instances_than_the_host_takes_and_none_by_an_older_controller(host):
    host.accept(1)
    host.done("persist toy 1 --fence 7")
    path = host.root / "model-repository" / "toy" / "config.pbtxt"
    before = path.read_text()
    assert host.refused("scale toy 5 --fence 7") == "instances"
    assert host.refused("scale toy 2 --fence 6") == "fence"
    assert path.read_text() == before
    host.done("scale toy 4 --fence 7")
    assert instances_in(path.read_text()) == 4


def test_a_package_that_was_changed_is_not_scaled(host):
    host.accept(1)
    host.done("persist toy 1")
    config = host.root / "packages" / "toy" / "1" / "config.pbtxt"
    config.chmod(0o644)
    config.write_text(config.read_text().replace("max_batch_size: 8", "max_batch_size: 4"))
    assert host.refused("scale toy 2") == "changed-file"
    assert not (host.root / "state" / "toy.instances").exists()


def test_a_model_that_comes_later_has_the_instances_that_were_ordered(host):
    host.done("scale toy 2")
    assert not (host.root / "model-repository" / "toy").exists()
    host.accept(1)
    host.done("persist toy 1")
    text = (host.root / "model-repository" / "toy" / "config.pbtxt").read_text()
    assert instances_in(text) == 2


def test_a_revoked_digest_is_refused_everywhere(host):
    digest = host.accept(1)["digest"]
    host.done("persist toy 1")
    host.done(f"revoke {digest}")
    host.done(f"revoke {digest}")
    assert (host.root / "state" / "revoked").read_text() == f"sha256:{digest}\n"
    for line in ("install toy 1", "serve toy 1", "persist toy 1"):
        assert host.refused(line) == "revoked"
    assert {fault["reason"] for fault in host.done("verify toy")["faults"]} >= {"revoked"}
    host.send(1)
    assert host.refused("accept toy 1") == "revoked"


def test_odd_names_are_facts_and_cost_nothing(host):
    host.accept(1)
    host.done("persist toy 1")
    (host.root / "model-repository" / "toy" / "3.bak").mkdir()
    (host.root / "packages" / "toy" / "007").mkdir()
    (host.root / "packages" / "toy" / "n\nl").mkdir()
    facts = host.done("facts all")["models"]["toy"]
    assert facts["installed"] == [1] and list(facts["packages"]) == ["1"]
    assert facts["odd"] == [
        "packages/toy/007", "packages/toy/n\\nl", "model-repository/toy/3.bak",
    ]  # fmt: skip
    assert host.done("verify all")["ok"]


def test_served_and_newest_packages_stay(host):
    for version in range(2, 6):
        host.publish(version)
    for version in range(1, 6):
        host.accept(version)
        host.done(f"install toy {version}")
    assert host.done("prune toy 1,5 2") == {"packages": [2], "installed": [2, 3, 4]}
    facts = host.done("facts toy")["models"]["toy"]
    assert list(facts["packages"]) == ["1", "3", "4", "5"] and facts["installed"] == [1, 5]


def test_failed_versions_push_no_good_one_off_the_disk(host):
    for version in range(2, 8):
        host.publish(version)
    for version in range(1, 8):
        host.accept(version)
    for version in (2, 3):  # 1 is of before: it counts as good
        host.done(f"proven toy {version}")
        host.done(f"proven toy {version}")
    assert (host.root / "state" / "toy.proven").read_text() == "1\n2\n3\n"
    # 3 serves; 4 to 7 failed one after another. 2 is the last good one before it.
    assert host.done("prune toy 3 1") == {"packages": [1, 4, 5, 6, 7], "installed": []}
    assert list(host.done("facts toy")["models"]["toy"]["packages"]) == ["2", "3"]


def test_what_a_restarted_triton_is_to_serve_is_not_pruned_even_unnamed(host):
    host.publish(2)
    for version in (1, 2):
        host.accept(version)
    host.done("persist toy 1,2")
    assert host.done("prune toy none 0") == {"packages": [], "installed": []}


def test_a_touched_copy_is_seen_by_the_next_facts(host):
    host.accept(1)
    host.done("persist toy 1")
    assert host.done("facts toy")["verified"] is None
    host.done("verify all")
    assert host.done("facts toy")["verified"]["ok"]
    folder = host.root / "model-repository" / "toy" / "1"
    model, weights = folder / "model.py", folder / "weights.bin"
    good = model.read_bytes()
    for path in (folder, model, weights):
        path.chmod(0o755)
    assert host.done("facts toy")["verified"]["ok"], "another mode is no other content"
    os.utime(model)
    assert host.done("facts toy")["verified"]["ok"]
    before = model.stat()
    model.write_bytes(good.replace(b"0.002", b"0.003"))
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
    weights.write_bytes(b"\7" * (1 << 20))
    for _ in range(2):
        found = host.done("facts all")["verified"]
        assert not found["ok"]
        (fault,) = found["faults"]
        assert (fault["model"], fault["version"], fault["reason"]) == ("toy", 1, "changed-file")
        assert "model.py" in fault["detail"]
    model.write_bytes(good)
    (fault,) = host.done("facts toy")["verified"]["faults"]
    assert "weights.bin" in fault["detail"], "mending one file hides no other"
    (folder / "evil.py").write_text("")
    host.done("install toy 1")
    assert host.done("facts toy")["verified"] == host.done("facts all")["verified"]
    assert host.done("facts toy")["verified"]["ok"]
    folder.chmod(0o755)
    (folder / "evil.py").write_text("")
    assert "evil.py" in host.done("facts toy")["verified"]["faults"][0]["detail"]


def test_what_killed_commands_left_is_removed(host):
    host.accept(1)
    left = host.root / "staging" / ".left-0123"
    (left / "inner").mkdir(parents=True)
    (host.root / "packages" / ".verifying").mkdir()
    found = host.done("gc")
    assert sorted(found["removed"]) == ["packages/.verifying", "staging/.left-0123"]
    assert found["regions"] == {"number": 0, "bytes": 0}
    assert host.done("gc")["removed"] == [] and not left.exists()
    assert host.done("verify all")["ok"]


def test_the_log_of_triton_is_shown_by_its_last_lines(host):
    (host.root / "run" / "triton.log").write_bytes(b"one\ntwo\n\xff three\n")
    assert host.done("logs 2") == {"text": "two\n\ufffd three\n"}
    for line in ("logs", "logs 0", "logs 1001", "logs -1", "logs ../x"):
        assert host.refused(line) == "request"


def test_a_restart_runs_the_one_command_of_the_installation(host):
    host.done("restart")
    assert (host.root / "run" / "restarted").read_text() == "restarted\n"


def test_without_a_triton_the_refusal_names_it(host):
    host.accept(1)
    facts = host.done("facts toy")
    assert "no Triton listens" in facts["control"] and facts["memory_bytes"] is None
    assert host.done("memory") == {"memory_bytes": None}
    assert facts["models"]["toy"]["states"] == {} and facts["models"]["toy"]["golden"] == {}
    assert host.refused("serve toy 1 --timeout 20") == "triton"
    assert host.refused("withdraw toy --timeout 20") == "triton"


def test_a_command_is_ended_in_time(host):
    import fcntl

    with (host.root / "state" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert host.refused("verify all --timeout 1") == "timeout"
        assert host.done("facts toy")
