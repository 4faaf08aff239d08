"""Keys: made once, pinned by name and address, good for one purpose."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from paramiko.hostkeys import HostKeys

from conf import compose
from conf.site_schema import Site, site_config
from scripts.box import hosts, keys
from serving.artifact.signature import (
    APPROVER,
    IDENTITY,
    NAMESPACE,
    allowed_signer,
    check_signature,
)
from serving.artifact.signature import sign as sign_bytes
from serving.fleet.bootstrap.host_pin import known_hosts_line
from serving.fleet.bootstrap.ssh_access import authorized_key

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")


def generate(path: Path) -> str:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "x", "-f", str(path)], check=True
    )
    return path.with_suffix(".pub").read_text()


def sign(key: Path, message: Path, namespace: str) -> Path:
    signature = message.with_name(message.name + ".sig")
    signature.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", namespace, str(message)]
    subprocess.run(command, check=True, capture_output=True)
    return signature


def verified(signers: Path, message: Path, signature: Path, namespace: str) -> bool:
    with message.open() as text:
        command = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", IDENTITY,
                   "-n", namespace, "-s", str(signature)]  # fmt: skip
        return subprocess.run(command, stdin=text, capture_output=True).returncode == 0


def test_a_host_is_pinned_by_its_name_and_its_address(tmp_path: Path) -> None:
    public = generate(tmp_path / "host")
    line = known_hosts_line("use1-a", "127.0.0.11", 2222, public)
    (tmp_path / "known_hosts").write_text(line)
    known = HostKeys(str(tmp_path / "known_hosts"))
    for name in ("[use1-a]:2222", "[127.0.0.11]:2222"):
        assert known.lookup(name)["ssh-ed25519"].get_base64() == public.split()[1]
    assert known.lookup("[127.0.0.12]:2222") is None


def test_the_signer_counts_for_releases_only(tmp_path: Path) -> None:
    public = generate(tmp_path / "release")
    signers = tmp_path / "allowed_signers"
    signers.write_text(allowed_signer(public))
    message = tmp_path / "manifest.json"
    message.write_text("{}\n")
    good = sign(tmp_path / "release", message, NAMESPACE)
    assert verified(signers, message, good, NAMESPACE)
    other = sign(tmp_path / "release", message, "git")
    assert not verified(signers, message, other, "git")
    generate(tmp_path / "stranger")
    foreign = sign(tmp_path / "stranger", message, NAMESPACE)
    assert not verified(signers, message, foreign, NAMESPACE)


def test_a_site_s_approvers_count_for_approvals_only(tmp_path: Path) -> None:
    release, approver = generate(tmp_path / "release"), generate(tmp_path / "approver")
    site = site_config(compose("site", [f"site.signing.approvers=['{approver.strip()}']"]))
    (tmp_path / "signers").write_text(hosts.signers(site, release))
    message = tmp_path / "manifest.json"
    message.write_text("{}\n")
    for key in ("release", "approver"):
        good = sign(tmp_path / key, message, NAMESPACE)
        assert verified(tmp_path / "signers", message, good, NAMESPACE) is (key == "release")
    approval = sign_bytes(message.read_bytes(), tmp_path / "approver", APPROVER)
    check_signature(message.read_bytes(), approval, tmp_path / "signers", APPROVER)


def test_the_deploy_key_may_have_one_command_run_and_reach_inference_and_nothing_else(
    site: Site,
) -> None:
    line = hosts.verbs_key(site, "use1-b", "ssh-ed25519 AAAA x")
    assert line.startswith("restrict,")
    assert line.count("permitopen=") == 1 and 'permitopen="127.0.0.12:18000"' in line
    assert "127.0.0.11" not in line and "pty" not in line
    here = hosts.home(site, "use1-b")
    assert f'command="{site.serving_env}/bin/python -I -B {here}/etc/host {here} command"' in line
    config = hosts.sshd_config(site, "use1-b")
    assert "AllowTcpForwarding local" in config and "PermitOpen 127.0.0.12:18000" in config
    assert "AllowStreamLocalForwarding no" in config


def test_the_account_that_receives_may_neither_forward_nor_leave_staging(site: Site) -> None:
    line = hosts.staging_key(site, "use1-b", "ssh-ed25519 AAAA x")
    staging = hosts.home(site, "use1-b") / "staging"
    assert line.startswith(
        f'restrict,command="umask 007; exec /usr/bin/rrsync -wo {staging}" ssh-ed25519 AAAA '
    )
    assert "forwarding" not in line
    own = hosts.sshd_config(site, "use1-b").split("Match User lg-host")[1]
    assert "authorized_keys.staging" in own and "AllowTcpForwarding no" in own


def test_a_command_that_would_end_its_quotes_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot carry"):
        authorized_key("ssh-ed25519 AAAA x", 'echo "x"')


@needs_root
def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    first = keys.ensure_ed25519(path, "root", "c")
    private = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.ensure_ed25519(path, "root", "c") == first
    assert path.read_text() == private
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert derived.split()[:2] == first.split()[:2]


@needs_root
def test_a_key_that_was_half_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / ".id_ed25519.new").write_text("half")
    (tmp_path / ".id_ed25519.new.pub").write_text("half")
    (tmp_path / "id_ed25519.pub").write_text("of a private key that never came")
    public = keys.ensure_ed25519(tmp_path / "id_ed25519", "root", "c")
    assert public.startswith("ssh-ed25519 ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["id_ed25519", "id_ed25519.pub"]
