"""What is sent to a host, to the letter, and how its answers are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fleet.errors import FleetError, StuckVersion
from serving.fleet.inventory import Host, Ssh
from serving.fleet.rollout.lease import LeaseLost
from serving.fleet.ssh import transfer
from serving.fleet.ssh.connection import Answer
from serving.fleet.ssh.rsync import rsync_argv, rsync_reason
from serving.fleet.ssh.verbs import HostVerbs, PackageRefused, parse_answer

SSH = Ssh("lg-verify", "lg-host", 2222, Path("/keys/deploy key"), Path("/keys/known"), 5, 60)
HOST = Host("a", "127.0.0.11", "us-east", 1)
NONCE = "0123456789abcdef"


class ScriptedShell:
    """A host that answers every command with `answer` behind whatever `noise` came before."""

    def __init__(self, answer: object, noise: str = "") -> None:
        self.host, self.ssh, self.answer, self.noise = HOST, SSH, answer, noise
        self.commands: list[str] = []

    def run(self, command: str, timeout_s: float) -> Answer:
        self.commands.append(command)
        nonce = command.split(" ")[1]
        text = f"{self.noise}lockgate-answer {nonce}\n{json.dumps(self.answer)}\n"
        return Answer(0, text, "")


def test_rsync_trusts_pinned_keys_only_and_compares_bytes():
    argv = rsync_argv(Path("/store/toy/2"), HOST, SSH, "toy-2", 500)
    assert argv[-2:] == ["/store/toy/2/", "lg-host@127.0.0.11:toy-2/"]
    assert {"--checksum", "--files-from=-", "--bwlimit=500"} <= set(argv)
    shell = argv[argv.index("--rsh") + 1]
    for option in ("StrictHostKeyChecking=yes", "UserKnownHostsFile=/keys/known", "BatchMode=yes",
                   "GlobalKnownHostsFile=/dev/null", "-F none",
                   "-i '/keys/deploy key'"):  # fmt: skip
        assert option in shell
    assert not any(part.startswith("--link-dest") for part in argv)


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("Could not chdir to home directory /nonexistent: No\nrsync: closed", "rsync: closed"),
        ("ssh: connect to host h port 22: Connection refused\nrsync: closed",
         "ssh: connect to host h port 22: Connection refused"),
        ("Could not chdir to home directory /nonexistent: No such file\n", "status 255"),
        ("", "status 255"),
    ],
)  # fmt: skip
def test_the_reason_of_a_transfer_is_not_the_home_that_an_account_lacks(stderr, reason):
    assert rsync_reason(stderr, 255) == reason


def test_an_ipv6_host_has_brackets():
    host = Host("a", "fd00::1", "us-east", 1)
    assert rsync_argv(Path("/s"), host, SSH, "toy-2", 0)[-1] == "lg-host@[fd00::1]:toy-2/"


def test_a_verb_is_one_line_of_checked_words():
    shell = ScriptedShell({"ok": True, "content": {}})
    HostVerbs(shell, fence=7).call("serve", "toy", "1,2", rollback=True, timeout_s=90)
    (command,) = shell.commands
    assert command.split(" ")[2:] == [
        "serve", "toy", "1,2", "--fence", "7", "--timeout", "90", "--rollback",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        ("fence", LeaseLost), ("changed-file", PackageRefused), ("revoked", PackageRefused),
        ("older-version", PackageRefused), ("triton", FleetError), ("anything", FleetError),
        ("stuck-unload", StuckVersion), ("stuck-load", StuckVersion),
    ],
)  # fmt: skip
def test_a_refusal_is_an_error_with_the_hosts_reason(refused, error):
    shell = ScriptedShell({"ok": False, "refused": refused, "detail": "such is it"})
    with pytest.raises(error, match=r"a.*such is it") as raised:
        HostVerbs(shell).call("accept", "toy", 2)
    assert type(raised.value) is error


@pytest.mark.parametrize("answer", [{}, [], 7, None, {"ok": 1}, {"ok": True, "content": []}])
def test_an_answer_that_is_none_is_an_error_of_that_host(answer):
    with pytest.raises(FleetError, match=r"^a: "):
        HostVerbs(ScriptedShell(answer)).call("facts", "toy")


@pytest.mark.parametrize("content", [{}, {"models": 3}, {"models": {"toy": {"packages": [1]}}}])
def test_facts_that_are_none_are_an_error_of_that_host(content):
    with pytest.raises(FleetError, match="a: its answer about toy cannot be read"):
        transfer.read_facts(HostVerbs(ScriptedShell({"ok": True, "content": content})), "toy")


def test_facts_of_a_host():
    content = {
        "disk_free": 5, "shm_free": 6, "fence": 1, "memory_bytes": 7, "control": "it hangs",
        "work": "serve toy 1",
        "verified": {"at": "2026-01-01T00:00:00Z", "ok": False, "faults": [
            {"model": "toy", "version": 1, "where": "repository", "reason": "changed-file",
             "detail": "model.py differs"}]},
        "models": {"toy": {"packages": {"1": "d"}, "installed": [1], "config": "c", "highest": 3,
                           "odd": ["packages/toy/3.bak"],
                           "states": {"1": ["READY", ""], "2": ["UNAVAILABLE", "unloaded"]},
                           "golden": {"1": {"ok": False, "detail": "y is off", "at": "2026",
                                            "seconds": 0.5, "failed_in_row": 2}}}},
    }  # fmt: skip
    noise = "disk 5\nlockgate-answer\nWelcome\n"
    shell = ScriptedShell({"ok": True, "content": content}, noise)
    facts = transfer.read_facts(HostVerbs(shell), "toy")
    assert (facts.packages, facts.installed, facts.config) == ({1: "d"}, (1,), "c")
    assert (facts.disk_free, facts.shm_free, facts.highest) == (5, 6, 3)
    assert facts.odd == ("packages/toy/3.bak",)
    assert facts.states == {1: ("READY", ""), 2: ("UNAVAILABLE", "unloaded")}
    assert (facts.memory_bytes, facts.control, facts.work) == (7, "it hangs", "serve toy 1")
    assert facts.golden == {1: transfer.GoldenVerdict(False, "y is off", "2026", 0.5)}
    assert facts.verification.faults == ("toy/1 in its repository: changed-file: model.py differs",)


@pytest.mark.parametrize(("found", "read"), [(7, 7), (None, None)])
def test_the_memory_of_a_triton(found, read):
    verbs = HostVerbs(ScriptedShell({"ok": True, "content": {"memory_bytes": found}}))
    assert transfer.read_memory(verbs) == read


@pytest.mark.parametrize("found", ["much", [1], {"bytes": 1}])
def test_memory_that_is_no_number_is_an_error_of_that_host(found):
    verbs = HostVerbs(ScriptedShell({"ok": True, "content": {"memory_bytes": found}}))
    with pytest.raises(FleetError, match="is no memory in bytes"):
        transfer.read_memory(verbs)


@given(noise=st.text(max_size=200), number=st.integers())
def test_whatever_came_before_an_answer_is_no_part_of_it(noise, number):
    document = json.dumps({"number": number})
    text = f"{noise}\nlockgate-answer {NONCE}\n{document}\n"
    assert parse_answer(text, NONCE) == {"number": number}


@given(output=st.text(max_size=300))
def test_without_the_nonce_nothing_is_an_answer(output):
    assert parse_answer(output, NONCE) is None


def test_an_answer_nested_without_end_is_none():
    assert parse_answer(f"lockgate-answer {NONCE}\n{'[' * 200_000}", NONCE) is None


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
