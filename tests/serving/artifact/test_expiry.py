"""Time, revocation and approval: each refusal by its true name, and a broken list stops all."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.artifact import signature, verify
from serving.artifact.manifest import read_manifest
from serving.artifact.verify import (
    APPROVAL,
    APPROVER,
    EXIT_CODES,
    MANIFEST,
    SIGNATURE,
    Refused,
    format_time,
    parse_time,
    read_revocations,
    verify_package,
)

from .conftest import FILES, Keys, make_key


def refused(package: Path, allowed: Path, **options: object) -> Refused:
    with pytest.raises(Refused) as error:
        verify_package(package, allowed, **options)  # type: ignore[arg-type]
    assert error.value.exit_code == EXIT_CODES[error.value.reason]
    return error.value


def signers(folder: Path, key: Path, options: str = "") -> Path:
    """allowed_signers with the release key `key`, under further options such as valid-before."""
    line = signature.allowed_signer(key.with_suffix(".pub").read_text())
    path = folder / "signers"
    path.write_text(line.replace('" ssh', f'"{options} ssh', 1))
    return path


def fingerprint(key: Path) -> str:
    argv = ["ssh-keygen", "-l", "-f", str(key.with_suffix(".pub"))]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[1]


EXPIRED = ',valid-before="20260601Z"'  # after the packages of the tests were made
BEFORE = ',valid-before="20250601Z"'
FUTURE = ',valid-after="20980101Z"'


def test_an_expired_package_is_called_expired(publish: Callable[..., Path], keys: Keys) -> None:
    package = publish(expires="2026-01-02T03:04:06Z")
    found = refused(package, keys.allowed)
    assert (found.reason, str(found)) == (
        "expired",
        "flights/3 expired at 2026-01-02T03:04:06Z: release its run again",
    )
    verified = verify_package(package, keys.allowed, accept_expired=True)
    assert verified.expires == "2026-01-02T03:04:06Z"


def test_a_package_lasts_to_the_second_it_names(publish: Callable[..., Path], keys: Keys) -> None:
    soon = format_time(datetime.now(UTC) + timedelta(hours=1))
    assert verify_package(publish(expires=soon), keys.allowed).expires == soon


def test_an_expired_key_is_never_called_tampered(package: Path, keys: Keys, tmp_path: Path) -> None:
    for options, reason in ((EXPIRED, "expired-key"), (FUTURE, "not-yet-valid-key")):
        found = refused(package, signers(tmp_path, keys.ours, options))
        assert found.reason == reason
        assert fingerprint(keys.ours) in str(found)


def test_a_key_that_expired_after_it_signed_counts_for_what_already_serves(
    package: Path, keys: Keys, tmp_path: Path
) -> None:
    expired = signers(tmp_path, keys.ours, EXPIRED)
    assert verify_package(package, expired, accept_expired=True).version == 3
    for options, reason in ((BEFORE, "expired-key"), (FUTURE, "not-yet-valid-key")):
        listed = signers(tmp_path, keys.ours, options)
        assert refused(package, listed, accept_expired=True).reason == reason


def test_a_changed_file_or_manifest_is_called_so_whatever_has_expired(
    publish: Callable[..., Path], keys: Keys, tmp_path: Path
) -> None:
    package = publish(expires="2026-01-02T03:04:06Z")
    expired = signers(tmp_path, keys.ours, EXPIRED)
    (package / "config.pbtxt").chmod(0o644)
    (package / "config.pbtxt").write_bytes(b'name: "Flights"\n')
    assert refused(package, expired, accept_expired=True).reason == "changed-file"
    (package / MANIFEST).chmod(0o644)
    (package / MANIFEST).write_bytes((package / MANIFEST).read_bytes().replace(b"0.7", b"0.9"))
    for accept in (False, True):
        assert refused(package, expired, accept_expired=accept).reason == "changed-manifest"


def test_a_new_line_for_the_same_key_makes_it_count_again(
    package: Path, keys: Keys, tmp_path: Path
) -> None:
    both = signers(tmp_path, keys.ours, EXPIRED)
    both.write_text(both.read_text() + keys.allowed.read_text())
    assert verify_package(package, both).version == 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('train@lockgate namespaces="lockgate-release" KEY', "foreign-signature"),
        ('release@lockgate namespaces="git" KEY', "foreign-signature"),
        ('release@lockgate valid-before="soon" KEY', "cannot-check"),
        ("# release@lockgate KEY", "foreign-signature"),
    ],
)
def test_a_known_key_that_may_not_release_is_not_called_tampered(
    package: Path, keys: Keys, tmp_path: Path, line: str, reason: str
) -> None:
    public = " ".join(keys.ours.with_suffix(".pub").read_text().split()[:2])
    (tmp_path / "signers").write_text(line.replace("KEY", public) + "\n")
    assert refused(package, tmp_path / "signers").reason == reason


def test_a_revoked_manifest_and_a_revoked_key_are_refused_with_the_reason(
    package: Path, keys: Keys, tmp_path: Path
) -> None:
    revoked, public = tmp_path / "revoked", keys.ours.with_suffix(".pub").read_text()
    digest = read_manifest(package).digest
    for line in (f"sha256:{digest} leaks", f"{fingerprint(keys.ours)} leaks", public):
        revoked.write_text(f"# no longer counts\n\n{line}\n")
        for accept in (False, True):
            found = refused(package, keys.allowed, revoked=revoked, accept_expired=accept)
            assert found.reason == "revoked"
            assert str(found).endswith((" is revoked: leaks", " is revoked: ours"))
    foreign = keys.foreign.with_suffix(".pub").read_text()
    revoked.write_text(f"sha256:{digest[::-1]} other\n{foreign}{fingerprint(keys.foreign)}\n")
    assert verify_package(package, keys.allowed, revoked=revoked).version == 3


def test_an_empty_list_revokes_nothing_and_a_missing_one_refuses(
    package: Path, keys: Keys, tmp_path: Path
) -> None:
    revoked = tmp_path / "revoked"
    assert refused(package, keys.allowed, revoked=revoked).reason == "cannot-check"
    revoked.write_text("")
    assert verify_package(package, keys.allowed, revoked=revoked).version == 3


@pytest.mark.parametrize(
    "line",
    [
        b"f" * 64,
        b"sha256:" + b"f" * 63,
        b"sha256:" + b"F" * 64,
        b"sha256: " + b"f" * 64,
        b"SHA256:short",
        b"ssh-ed25519",
        b"ssh-ed25519 AAAA",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHGITqF4k1fo9bF4Q5flGPMl3WnrRlCVmSaty6fy",
        b"SHA256:" + b"A" * 42 + b"B",
        b"ssh-ed25519 *** ours",
        b"flights/3",
        b"\xff",
        b"sha256:" + b"f" * 64 + b"\0",
    ],
)
def test_a_line_that_cannot_be_understood_refuses_every_package(
    package: Path, keys: Keys, tmp_path: Path, line: bytes
) -> None:
    (tmp_path / "revoked").write_bytes(b"# fine\n" + line + b"\nsha256:" + b"0" * 64 + b"\n")
    found = refused(package, keys.allowed, revoked=tmp_path / "revoked")
    assert found.reason == "cannot-check"
    assert "line 2" in str(found) or "utf-8" in str(found)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_revocation_list_makes_the_reader_fall_over(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("list") / "revoked"
    path.write_bytes(data)
    try:
        found = read_revocations(path)
    except Refused as error:
        assert error.reason == "cannot-check"
    else:
        lines = [line.strip(b" \t\r") for line in data.split(b"\n")]
        named = [line for line in lines if line and not line.startswith(b"#")]
        assert bool(found.manifests or found.keys) == bool(named)


@settings(deadline=None)
@given(st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), max_size=4))
def test_every_digest_of_a_list_is_revoked(
    tmp_path_factory: pytest.TempPathFactory, digests: list[str]
) -> None:
    path = tmp_path_factory.mktemp("list") / "revoked"
    path.write_text("".join(f"sha256:{digest}  why \u2028 so\r\n" for digest in digests))
    assert set(read_revocations(path).manifests) == set(digests)


@settings(deadline=None)
@given(st.text(max_size=24) | st.datetimes(timezones=st.just(UTC)).map(format_time))
def test_a_time_has_one_spelling(text: str) -> None:
    try:
        moment = parse_time(text)
    except ValueError:
        return
    assert format_time(moment) == text


@pytest.fixture(scope="module")
def approver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("approver"), "approver")


def approve(package: Path, key: Path) -> None:
    (package / APPROVAL).unlink(missing_ok=True)
    data = (package / MANIFEST).read_bytes()
    (package / APPROVAL).write_bytes(signature.sign(data, key, APPROVER))


def test_an_approval_by_a_second_key_is_needed_where_a_host_wants_one(
    package: Path, keys: Keys, approver: Path, tmp_path: Path
) -> None:
    both = tmp_path / "both"
    line = signature.allowed_signer(approver.with_suffix(".pub").read_text(), APPROVER)
    both.write_text(keys.allowed.read_text() + line)
    assert refused(package, both, approvals=1).reason == "unapproved"
    approve(package, approver)
    assert verify_package(package, both, approvals=1).files == len(FILES)
    assert verify_package(package, keys.allowed).files == len(FILES)
    approve(package, keys.foreign)
    assert refused(package, both, approvals=1).reason == "foreign-signature"
    (package / APPROVAL).write_bytes((package / SIGNATURE).read_bytes())
    assert refused(package, both, approvals=1).reason == "wrong-namespace"
    approve(package, approver)
    (tmp_path / "revoked").write_text(f"{fingerprint(approver)} left\n")
    assert refused(package, both, approvals=1, revoked=tmp_path / "revoked").reason == "revoked"


def test_the_release_key_cannot_approve_what_it_signed(
    package: Path, keys: Keys, tmp_path: Path
) -> None:
    one = keys.ours.with_suffix(".pub").read_text()
    (tmp_path / "one").write_text(
        signature.allowed_signer(one) + signature.allowed_signer(one, APPROVER)
    )
    approve(package, keys.ours)
    assert refused(package, tmp_path / "one", approvals=1).reason == "unapproved"


def test_an_approval_of_other_bytes_is_refused(
    publish: Callable[..., Path], keys: Keys, approver: Path, tmp_path: Path
) -> None:
    line = signature.allowed_signer(approver.with_suffix(".pub").read_text(), APPROVER)
    (tmp_path / "both").write_text(keys.allowed.read_text() + line)
    old, new = publish(1), publish(2)
    for folder in (old, new):
        folder.chmod(0o755)
    approve(old, approver)
    (new / APPROVAL).write_bytes((old / APPROVAL).read_bytes())
    assert refused(new, tmp_path / "both", approvals=1).reason == "changed-manifest"


def test_a_certificate_signs_nothing(package: Path, tmp_path: Path) -> None:
    authority, holder = make_key(tmp_path, "authority"), make_key(tmp_path, "holder")
    argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", "x", "-n", verify.IDENTITY]
    subprocess.run([*argv, str(holder.with_suffix(".pub"))], check=True)
    public = " ".join(authority.with_suffix(".pub").read_text().split()[:2])
    (tmp_path / "signers").write_text(f"{verify.IDENTITY} cert-authority {public}\n")
    data = (package / MANIFEST).read_bytes()
    signed = signature.sign(data, tmp_path / "holder-cert.pub")
    (package / SIGNATURE).write_bytes(signed)
    found = refused(package, tmp_path / "signers")
    assert found.reason == "bad-signature" and "certificate" in str(found)


def test_a_revoked_key_cannot_hide_behind_the_armor(
    package: Path, keys: Keys, tmp_path: Path
) -> None:
    """ssh-keygen reads past blanks in a line and ignores what follows the block's end; a reader
    that skipped or added lines would see another key than the one that signed."""
    (tmp_path / "revoked").write_text(keys.ours.with_suffix(".pub").read_text())
    data = (package / MANIFEST).read_bytes()
    good, decoy = (package / SIGNATURE).read_bytes(), signature.sign(data, keys.foreign)
    head, *body, end = good.strip().split(b"\n")
    blanks = b"\n".join([head, b" ".join(body), end, b""])
    for spelled in (good + decoy, blanks, good + decoy.split(b"\n", 1)[1], b"\n" + good):
        (package / SIGNATURE).write_bytes(spelled)
        found = refused(package, keys.allowed, revoked=tmp_path / "revoked")
        assert found.reason in ("bad-signature", "bad-manifest", "revoked")


SLOW_FIXTURE = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SLOW_FIXTURE
@given(data=st.data())
def test_any_flipped_byte_of_the_signature_s_blob_is_refused(
    package: Path, keys: Keys, data: st.DataObject
) -> None:
    good = (package / SIGNATURE).read_bytes()
    head, *body, end = good.strip().split(b"\n")
    blob = bytearray(base64.b64decode(b"".join(body)))
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= data.draw(st.integers(1, 255))
    (package / SIGNATURE).write_bytes(b"\n".join([head, base64.b64encode(blob), end, b""]))
    try:
        refused(package, keys.allowed)
    finally:
        (package / SIGNATURE).write_bytes(good)


def test_every_single_byte_of_every_file_counts(package: Path, keys: Keys) -> None:
    for name, original in FILES.items():
        for at in range(len(original)):
            spoiled = original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :]
            (package / name).write_bytes(spoiled)
            assert refused(package, keys.allowed).reason == "changed-file"
        (package / name).write_bytes(original)
    assert verify_package(package, keys.allowed).files == len(FILES)


def test_the_script_takes_the_same_options(
    publish: Callable[..., Path], keys: Keys, tmp_path: Path
) -> None:
    package = publish(expires="2026-01-02T03:04:06Z")
    (tmp_path / "revoked").write_text("")

    def script(*options: str) -> tuple[int, dict[str, object]]:
        argv = [sys.executable, "-I", "-S", str(Path(verify.__file__)), str(package)]
        argv += ["--allowed-signers", str(keys.allowed), "--model", "flights", "--version", "3"]
        done = subprocess.run([*argv, "--json", *options], capture_output=True, text=True, cwd="/")
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    assert script()[0] == EXIT_CODES["expired"] == 25
    code, answer = script("--accept-expired", "--revoked", str(tmp_path / "revoked"))
    assert (code, answer["expires"]) == (0, "2026-01-02T03:04:06Z")
    code, answer = script("--accept-expired", "--approvals", "1")
    assert (code, answer["refused"]) == (EXIT_CODES["unapproved"], "unapproved")
    (tmp_path / "revoked").write_text(f"sha256:{read_manifest(package).digest} drill\n")
    code, answer = script("--accept-expired", "--revoked", str(tmp_path / "revoked"))
    assert (code, answer["refused"]) == (EXIT_CODES["revoked"], "revoked")
