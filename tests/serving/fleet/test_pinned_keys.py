"""Pinned host keys: every form of a known_hosts line, and none that hides another."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fleet.ssh.pinned_keys import parse_pinned, pinned_keys
from tests.serving.fleet.bed import make_key

ADDRESS, PORT = "host1.example.com", 2222
NAME = f"[{ADDRESS}]:{PORT}"


@pytest.fixture
def key(tmp_path: Path) -> str:
    return " ".join(make_key(tmp_path / "host").split()[:2])


@pytest.fixture
def other(tmp_path: Path) -> str:
    return " ".join(make_key(tmp_path / "other").split()[:2])


def found(tmp_path: Path, text: str, address: str = ADDRESS, port: int = PORT):
    path = tmp_path / "known_hosts"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return pinned_keys(path, address, port)


@pytest.mark.parametrize(
    "pattern", [NAME, f"other,{NAME}", "[*.example.com]:2222", "[host?.example.com]:*"]
)
def test_a_plain_name_a_list_and_a_wildcard_pin(tmp_path, key, pattern):
    assert [k.base64 for k in found(tmp_path, f"{pattern} {key}\n").keys] == [key.split()[1]]


def test_a_hashed_name_pins(tmp_path, key):
    path = tmp_path / "known_hosts"
    path.write_text(f"{NAME} {key}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    assert ADDRESS not in path.read_text()
    assert [k.base64 for k in pinned_keys(path, ADDRESS, PORT).keys] == [key.split()[1]]


def test_ipv6_and_the_standard_port_pin(tmp_path, key):
    assert found(tmp_path, f"[fd00::1]:2222 {key}\n", "fd00::1").keys
    assert found(tmp_path, f"fd00::1 {key}\n", "fd00::1", 22).keys
    assert not found(tmp_path, f"fd00::1 {key}\n", "fd00::1", 2222).keys


def test_a_revoked_key_is_none_though_it_is_pinned(tmp_path, key, other):
    pinned = found(tmp_path, f"{NAME} {key}\n@revoked * {key}\n")
    assert pinned.keys == () and "@revoked" in pinned.remark
    pinned = found(tmp_path, f"@revoked * {other}\n{NAME} {key}\n")
    assert [k.base64 for k in pinned.keys] == [key.split()[1]]


def test_an_authority_pins_no_key(tmp_path, key):
    pinned = found(tmp_path, f"@cert-authority [*.example.com]:2222 {key}\n")
    assert pinned.keys == () and "@cert-authority" in pinned.remark


def test_a_broken_line_hides_no_other(tmp_path, key):
    lines = f"\n# x\n{NAME}\n{NAME} ssh-ed25519\n{NAME} ssh-ed25519 ?!\n\udcff\udcfe x y\n"
    assert found(tmp_path, f"{lines}{NAME} {key}\n{NAME} ssh-new AAAA\n").keys


@given(output=st.text(max_size=300))
def test_no_text_is_a_traceback(output):
    parse_pinned(output, NAME)
