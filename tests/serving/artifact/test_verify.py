"""Every way to spoil a package is refused, by name and with its own exit code."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.artifact import manifest, signature, verify
from serving.artifact.verify import EXIT_CODES, MANIFEST, SIGNATURE, Refused

from .conftest import FILES, Keys

SCRIPT = Path(verify.__file__)


def refusal(package: Path, keys: Keys, **wanted: object) -> str:
    with pytest.raises(Refused) as error:
        verify.verify_package(package, keys.allowed, **wanted)  # type: ignore[arg-type]
    assert error.value.exit_code == EXIT_CODES[error.value.reason]
    return error.value.reason


def script(package: Path, allowed: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The verifier as a host runs it: one file, isolated from every package of ours."""
    command = [sys.executable, "-I", "-S", str(SCRIPT), str(package)]
    command += ["--allowed-signers", str(allowed), *more]
    return subprocess.run(command, capture_output=True, text=True, cwd="/")


def resign(package: Path, key: Path, edit: Callable[[dict], None]) -> None:
    """Edit the manifest's JSON freely and sign the result: what a stolen schema could look like."""
    content = json.loads((package / MANIFEST).read_bytes())
    edit(content)
    data = json.dumps(content).encode()
    (package / MANIFEST).write_bytes(data)
    (package / SIGNATURE).write_bytes(signature.sign(data, key))


def test_a_good_package_is_verified_and_named(package: Path, keys: Keys) -> None:
    found = verify.verify_package(package, keys.allowed, "flights", 3)
    assert (found.model, found.version, found.files) == ("flights", 3, len(FILES))
    assert found.bytes == sum(map(len, FILES.values()))
    assert found.digest == manifest.read_manifest(package).digest


def test_the_script_alone_verifies_without_our_packages(package: Path, keys: Keys) -> None:
    done = script(package, keys.allowed, "--model", "flights", "--version", "3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["ok"] is True


def test_the_script_refuses_with_the_name_and_its_exit_code(package: Path, keys: Keys) -> None:
    (package / "version/model.py").write_bytes(b"import os\n")
    done = script(package, keys.allowed, "--model", "flights", "--version", "3", "--json")
    assert done.returncode == EXIT_CODES["changed-file"]
    answer = json.loads(done.stdout)
    assert (answer["refused"], answer["path"]) == ("changed-file", "version/model.py")


def test_exit_codes_are_distinct_and_leave_usage_errors_alone() -> None:
    codes = list(EXIT_CODES.values())
    assert len(set(codes)) == len(codes)
    assert not {0, 1, 2, 255} & set(codes)


SLOW_FIXTURE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SLOW_FIXTURE
@given(name=st.sampled_from(sorted(FILES)), data=st.data())
def test_any_flipped_byte_of_a_file_is_refused(
    package: Path, keys: Keys, name: str, data: st.DataObject
) -> None:
    original = FILES[name]
    if not original:
        return
    at = data.draw(st.integers(0, len(original) - 1))
    flip = data.draw(st.integers(1, 255))
    spoiled = bytearray(original)
    spoiled[at] ^= flip
    (package / name).write_bytes(spoiled)
    try:
        assert refusal(package, keys) == "changed-file"
    finally:
        (package / name).write_bytes(original)


@SLOW_FIXTURE
@given(data=st.data())
def test_any_flipped_byte_of_the_manifest_is_refused(
    package: Path, keys: Keys, data: st.DataObject
) -> None:
    original = (package / MANIFEST).read_bytes()
    spoiled = bytearray(original)
    spoiled[data.draw(st.integers(0, len(original) - 1))] ^= data.draw(st.integers(1, 255))
    (package / MANIFEST).write_bytes(spoiled)
    try:
        assert refusal(package, keys) == "changed-manifest"
    finally:
        (package / MANIFEST).write_bytes(original)


@SLOW_FIXTURE
@given(data=st.data())
def test_any_changed_signature_byte_never_verifies_other_bytes(
    package: Path, keys: Keys, data: st.DataObject
) -> None:
    """What still verifies is the same signature: armor has slack (line ends), and ssh-keygen takes
    any version up to its own in bytes 6 to 9, which no signature covers (PROTOCOL.sshsig)."""
    original = (package / SIGNATURE).read_bytes()
    lines = original.split(b"\n")
    row = data.draw(st.integers(1, len(lines) - 4))
    column = data.draw(st.integers(0, len(lines[row]) - 1))
    letter = data.draw(st.sampled_from(b"ABCDwxyz0189+/"))
    if lines[row][column] == letter:
        return
    lines[row] = lines[row][:column] + bytes([letter]) + lines[row][column + 1 :]
    (package / SIGNATURE).write_bytes(b"\n".join(lines))
    try:
        verify.verify_package(package, keys.allowed)
    except Refused:
        pass
    else:
        was, now = (
            base64.b64decode(b"".join(text)) for text in (original.split(b"\n")[1:-2], lines[1:-2])
        )
        assert (was[:6], was[10:]) == (now[:6], now[10:])
    finally:
        (package / SIGNATURE).write_bytes(original)


@pytest.mark.parametrize("name", sorted(FILES))
def test_each_missing_file_is_refused(package: Path, keys: Keys, name: str) -> None:
    (package / name).unlink()
    if not any((package / name).parent.iterdir()):
        (package / name).parent.rmdir()
    assert refusal(package, keys) == "missing-file"


@pytest.mark.parametrize(
    "name", ["extra.py", "version/extra.py", "version/new/deep.py", ".hidden", "manifest.json.bak"]
)
def test_each_extra_file_is_refused(package: Path, keys: Keys, name: str) -> None:
    path = package / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    assert refusal(package, keys) == "extra-file"


def test_a_renamed_file_is_refused(package: Path, keys: Keys) -> None:
    (package / "version/model.py").rename(package / "version/model2.py")
    assert refusal(package, keys) == "missing-file"


def test_two_swapped_files_are_refused(package: Path, keys: Keys) -> None:
    one, two = package / "version/model.py", package / "config.pbtxt"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert refusal(package, keys) == "changed-file"


def test_a_truncated_and_an_extended_file_are_refused(package: Path, keys: Keys) -> None:
    (package / "version/model.onnx").write_bytes(FILES["version/model.onnx"] + b"\0")
    assert refusal(package, keys) == "changed-file"
    (package / "version/model.onnx").write_bytes(b"")
    assert refusal(package, keys) == "changed-file"


def _symlink(path: Path) -> None:
    target = path.with_name("elsewhere")
    shutil.move(path, target.parent.parent / "elsewhere")
    path.symlink_to(target.parent.parent / "elsewhere")


def _hardlink(path: Path) -> None:
    os.link(path, path.parent.parent.parent / "other-name")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path may have some 100 bytes only
        server.bind(path.name)
        os.chdir(here)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [_symlink, _hardlink, _fifo, _socket, _folder])
def test_what_is_not_a_plain_file_is_refused(
    package: Path, keys: Keys, spoil: Callable[[Path], None]
) -> None:
    spoil(package / "version/model.py")
    assert refusal(package, keys) == "odd-file"


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE])
def test_a_linked_manifest_or_signature_is_refused(package: Path, keys: Keys, name: str) -> None:
    shutil.move(package / name, package.parent / "moved")
    (package / name).symlink_to(package.parent / "moved")
    assert refusal(package, keys) == "odd-file"


def test_a_linked_folder_is_refused_even_with_the_right_files_in_it(
    package: Path, keys: Keys
) -> None:
    shutil.move(package / "version", package.parent / "real")
    (package / "version").symlink_to(package.parent / "real")
    assert refusal(package, keys) == "odd-file"


def test_an_empty_folder_and_a_link_to_the_package_are_refused(
    package: Path, keys: Keys, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(package)
    assert refusal(tmp_path / "link", keys) == "no-package"
    (package / "version/numpy").mkdir()
    assert refusal(package, keys) == "odd-file"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_a_device_is_refused(package: Path, keys: Keys) -> None:
    (package / "config.pbtxt").unlink()
    os.mknod(package / "config.pbtxt", 0o666 | 0o020000, os.makedev(1, 3))
    assert refusal(package, keys) == "odd-file"


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE])
def test_an_unsigned_package_is_refused(package: Path, keys: Keys, name: str) -> None:
    (package / name).unlink()
    assert refusal(package, keys) == "unsigned"


def test_a_foreign_signature_is_refused(publish: Callable[..., Path], keys: Keys) -> None:
    assert refusal(publish(key=keys.foreign), keys) == "foreign-signature"


def test_a_signature_for_another_purpose_is_refused(package: Path, keys: Keys) -> None:
    command = ["ssh-keygen", "-Y", "sign", "-f", str(keys.ours), "-n", "git"]
    signed = subprocess.run(
        command, input=(package / MANIFEST).read_bytes(), capture_output=True, check=True
    ).stdout
    (package / SIGNATURE).write_bytes(signed)
    assert refusal(package, keys) == "wrong-namespace"


def test_a_signature_of_another_identity_is_refused(
    package: Path, keys: Keys, tmp_path: Path
) -> None:
    other = tmp_path / "signers"
    other.write_text(keys.allowed.read_text().replace("release@lockgate", "train@lockgate"))
    with pytest.raises(Refused):
        verify.verify_package(package, other)


def test_what_is_no_signature_is_refused(package: Path, keys: Keys) -> None:
    (package / SIGNATURE).write_bytes(b"trust me\n")
    assert refusal(package, keys) == "bad-signature"


def test_a_signature_of_another_version_is_refused(
    publish: Callable[..., Path], keys: Keys
) -> None:
    old, new = publish(1), publish(2)
    (new / SIGNATURE).chmod(0o644)
    (new / SIGNATURE).write_bytes((old / SIGNATURE).read_bytes())
    assert refusal(new, keys) == "changed-manifest"


def test_a_replayed_older_version_and_another_model_are_refused(
    publish: Callable[..., Path], keys: Keys
) -> None:
    old = publish(1)
    assert refusal(old, keys, model="flights", version=2) == "wrong-version"
    assert refusal(old, keys, model="lm", version=1) == "wrong-model"


def test_without_signers_or_ssh_keygen_nothing_is_verified(
    package: Path, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(package, replace(keys, allowed=tmp_path / "absent")) == "cannot-check"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(package, keys) == "cannot-check"


UNSAFE = ["../x", "/etc/passwd", "a/../b", "./a", "a//b", "", "a/", "-rf", ".ssh/key", "a\\b",
          "a\nb", "é", MANIFEST, SIGNATURE, "x" * 600, None, 3]  # fmt: skip


@pytest.mark.parametrize("path", UNSAFE)
def test_a_signed_manifest_with_an_unsafe_path_is_refused(
    package: Path, keys: Keys, path: object
) -> None:
    assert not verify.safe_path(path)
    resign(package, keys.ours, lambda content: content["files"][0].update(path=path))
    assert refusal(package, keys) in ("unsafe-path", "bad-manifest")


@given(st.text(alphabet="ab./\\-_ \n~é", max_size=12))
def test_a_safe_path_stays_inside(text: str) -> None:
    if verify.safe_path(text):
        assert os.path.normpath(text) == text
        assert not text.startswith(("/", "..", "-", "."))


BAD_EDITS: dict[str, Callable[[dict], None]] = {
    "an earlier format": lambda c: c.update(format="lockgate-package/1"),
    "another format": lambda c: c.update(format="lockgate-package/3"),
    "no expiry": lambda c: c.pop("expires"),
    "an expiry that is no time": lambda c: c.update(expires="never"),
    "an expiry of another form": lambda c: c.update(expires="2099-1-2T03:04:05Z"),
    "an expiry before its creation": lambda c: c.update(expires="2026-01-02T03:04:04Z"),
    "a creation that is no time": lambda c: c.update(created=0),
    "no files": lambda c: c.update(files=[]),
    "files is a string": lambda c: c.update(files="all"),
    "a file twice": lambda c: c["files"].append(c["files"][0]),
    "a file without size": lambda c: c["files"][0].pop("bytes"),
    "a short digest": lambda c: c["files"][0].update(sha256="abc"),
    "version as text": lambda c: c.update(version="3"),
    "version as truth": lambda c: c.update(version=True),
    "model as a path": lambda c: c.update(model="../flights"),
}


@pytest.mark.parametrize("edit", BAD_EDITS.values(), ids=BAD_EDITS.keys())
def test_a_signed_but_malformed_manifest_is_refused(
    package: Path, keys: Keys, edit: Callable[[dict], None]
) -> None:
    resign(package, keys.ours, edit)
    assert refusal(package, keys) == "bad-manifest"


@pytest.mark.parametrize("data", [b"\xff", b"[]", b"nothing", b'{"format": "x", "format": "y"}'])
def test_signed_bytes_that_are_no_manifest_are_refused(
    package: Path, keys: Keys, data: bytes
) -> None:
    (package / MANIFEST).write_bytes(data)
    (package / SIGNATURE).write_bytes(signature.sign(data, keys.ours))
    assert refusal(package, keys) == "bad-manifest"


def test_a_huge_signature_file_does_not_block(package: Path, keys: Keys) -> None:
    (package / SIGNATURE).write_bytes(b"x" * 1_000_000)
    assert refusal(package, keys) == "bad-manifest"
