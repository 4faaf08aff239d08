"""The host's side of `fab bootstrap`: compares facts with this host, and makes one so.

Sent over SSH with serving.artifact.durable and run by root's python3 from memory: standard library
only, and nothing of it stays. A request has {"nonce", "act": compare or make, "facts"}; the answer
is a line with the nonce, then one JSON list: {"text": the difference, "" for none} or {"fault": a
sentence}. Whatever is written appears whole: a file by rename, a tree by exchange, an environment
by the flip of its link.
"""

from __future__ import annotations

import ctypes
import grp
import hashlib
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

from serving.artifact.durable import replace_file, sync_path

MARK = "lockgate-bootstrap"
DIGEST_LETTERS = 12
"""Letters of an environment's digest in the name of its folder."""
_SETTLE_S = 1.5


class HostFault(Exception):
    """The fact cannot be made; the message is a sentence."""


def main(request: dict) -> None:
    """Print the answer to `request`."""
    os.umask(0o022)
    os.environ.update(LC_ALL="C.UTF-8", PATH="/usr/sbin:/usr/bin:/sbin:/bin")
    answers = [answer(request["act"], fact) for fact in request["facts"]]
    print(f"\n{MARK} {request['nonce']}\n{json.dumps(answers)}", flush=True)


def answer(act: str, fact: dict) -> dict:
    """The answer for one fact; when it was made, that it is now as wanted."""
    differs, make = KINDS[fact["kind"]]
    try:
        found = differs(fact)
        if act == "make" and found:
            make(fact)
            found = differs(fact)
            if found:
                raise HostFault(f"it was made and is not as wanted: {found}")
        return {"text": found}
    except HostFault as fault:
        return {"fault": str(fault)}
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return {"fault": f"{where}{error.strerror or error}"}
    except KeyError as error:
        return {"fault": f"there is no {error.args[0]}"}


def run(*argv: str, timeout_s: float = 900) -> str:
    """Output of a command. Raises HostFault with its last three lines."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
            timeout=timeout_s, cwd="/",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise HostFault(f"{argv[0]} did not end within {timeout_s:g} s") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = "; ".join(lines[-3:]) or f"status {done.returncode}"
        raise HostFault(f"{' '.join(argv[:3])}: {reason}")
    return done.stdout


def interpreter_differs(fact: dict) -> str:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    return "" if here == fact["version"] else f"is {here}"


def make_interpreter(fact: dict) -> None:
    raise HostFault(
        f"its python3 is {interpreter_differs(fact)[3:]} and the wheels are for {fact['version']}. "
        "Build them for that version on a machine that has it: fab wheelhouse --set "
        f"bootstrap.python={interpreter_differs(fact)[3:]}"
    )


def packages_differ(fact: dict) -> str:
    form = "${Package} ${Status}\\n"
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", form, *fact["names"]], capture_output=True, text=True
    ).stdout
    there = {line.split()[0] for line in shown.splitlines() if line.endswith("ok installed")}
    missing = [name for name in fact["names"] if name not in there]
    return f"missing: {' '.join(missing)}" if missing else ""


def make_packages(fact: dict) -> None:
    missing = packages_differ(fact).split()[1:]
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    try:
        run("apt-get", "update")
        run(*install)
    except HostFault as fault:
        raise HostFault(
            f"{fault}. Install them there by hand (the host needs no internet, only its mirror): "
            f"{' '.join(install)}"
        ) from None


def group_differs(fact: dict) -> str:
    return "" if _exists(grp.getgrnam, fact["name"]) else "missing"


def make_group(fact: dict) -> None:
    run("groupadd", "--system", fact["name"])


def account_differs(fact: dict) -> str:
    if not _exists(pwd.getpwnam, fact["name"]):
        return "missing"
    entry = pwd.getpwnam(fact["name"])
    wrong = [] if entry.pw_shell == fact["shell"] else [f"shell {entry.pw_shell}"]
    wrong += ["it is root"] if entry.pw_uid == 0 else []
    groups = _groups(fact["name"])
    wrong += [] if groups == set(fact["groups"]) else [f"groups {','.join(sorted(groups)) or '-'}"]
    return ", ".join(wrong)


def make_account(fact: dict) -> None:
    if not _exists(pwd.getpwnam, fact["name"]):
        group = ["--gid", fact["name"]] if _exists(grp.getgrnam, fact["name"]) else ["--user-group"]
        run("useradd", "--system", *group, "--no-create-home", "--home-dir", "/nonexistent",
            "--shell", fact["shell"], "--password", "*", fact["name"])  # fmt: skip
    if pwd.getpwnam(fact["name"]).pw_uid == 0:
        raise HostFault(f"{fact['name']} is root under another name; take that account away first")
    groups = ",".join(fact["groups"])
    run("usermod", "--shell", fact["shell"], "--groups", groups, fact["name"])


def folder_differs(fact: dict) -> str:
    return _differs(fact, stat.S_ISDIR, "a folder")


def make_folder(fact: dict) -> None:
    path = Path(fact["path"])
    if not os.path.lexists(path):
        path.mkdir()
    # The folder itself: a link that somebody put in its place is not followed.
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(handle, *_ids(fact))
        os.fchmod(handle, fact["mode"])
    finally:
        os.close(handle)


def file_differs(fact: dict) -> str:
    found = _differs(fact, stat.S_ISREG, "a file")
    if found in ("", "owner", "mode") and Path(fact["path"]).read_bytes() != fact["text"].encode():
        return "content"
    return found


def make_file(fact: dict) -> None:
    path = Path(fact["path"])
    before = path.read_bytes() if path.is_file() and not path.is_symlink() else None
    replace_file(path, fact["text"].encode(), fact["mode"], _ids(fact))
    if not fact["check"]:
        return
    try:
        run(*fact["check"])
    except HostFault as fault:
        if before is None:
            path.unlink()
        else:
            replace_file(path, before, fact["mode"], _ids(fact))
        raise HostFault(f"it was put back as it was: {fault}") from None


def first_file_differs(fact: dict) -> str:
    # The folder is its writer's: what stands there is only seen, and never followed.
    return "" if os.path.lexists(fact["path"]) else "missing"


def tree_differs(fact: dict) -> str:
    folder = Path(fact["path"])
    if folder.is_symlink() or not folder.is_dir():
        return "missing"
    found = {str(p.relative_to(folder)): p for p in folder.rglob("*") if not p.is_dir()}
    wrong = set(found) ^ set(fact["files"])
    wrong |= {
        name for name in set(found) & set(fact["files"])
        if found[name].is_symlink() or found[name].read_bytes() != fact["files"][name].encode()
    }  # fmt: skip
    return f"{len(wrong)} files" if wrong else ""


def make_tree(fact: dict) -> None:
    folder = Path(fact["path"])
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    for name, text in fact["files"].items():
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        replace_file(new / name, text.encode(), 0o644, (0, 0))
    if os.path.lexists(folder):
        _exchange(new, folder)
        shutil.rmtree(new)
    else:
        new.rename(folder)
    sync_path(folder.parent)


def environment_differs(fact: dict) -> str:
    path, wanted = Path(fact["path"]), _environment(fact)
    if not path.is_symlink():
        return "missing"
    if path.resolve() != wanted.resolve():
        return f"is {path.readlink().name}"
    return "" if (wanted / ".complete").is_file() else "incomplete"


def make_environment(fact: dict) -> None:
    path, folder = Path(fact["path"]), _environment(fact)
    if not (folder / ".complete").is_file():
        # One that was killed half-way has no stamp, and is made again from nothing.
        shutil.rmtree(folder, ignore_errors=True)
        run("python3", "-m", "venv", "--without-pip", str(folder))
        wanted = folder / "requirements.txt"
        wanted.write_text(fact["requirements"])
        (pip,) = Path(fact["wheels"]).glob("pip-*.whl")
        run(str(folder / "bin/python"), "-I", f"{pip}/pip", "install", "--quiet", "--no-index",
            "--no-deps", "--require-hashes", "--no-input", "--disable-pip-version-check",
            "--find-links", fact["wheels"], "--requirement", str(wanted))  # fmt: skip
        run(*(word.replace("ENVIRONMENT", str(folder)) for word in fact["finish"]))
        replace_file(folder / ".complete", b"", 0o644, (0, 0))
        os.sync()
    link = path.with_name(f".{path.name}.new")
    link.unlink(missing_ok=True)
    before = path.resolve() if path.is_symlink() else None
    link.symlink_to(folder.name)
    link.rename(path)
    sync_path(path.parent)
    for old in path.parent.glob(f"{path.name}-*"):
        if old not in (folder, before):
            shutil.rmtree(old)


def binary_differs(fact: dict) -> str:
    path = Path(fact["path"])
    if path.is_symlink() or not path.is_file():
        return "missing"
    same = hashlib.sha256(path.read_bytes()).hexdigest() == fact["digest"]
    return "" if same and os.access(path, os.X_OK) else "content"


def make_binary(fact: dict) -> None:
    replace_file(Path(fact["path"]), Path(fact["source"]).read_bytes(), 0o755, (0, 0))


def image_differs(fact: dict) -> str:
    there = subprocess.run(["podman", "image", "exists", fact["name"]], capture_output=True)
    return "" if there.returncode == 0 else "missing"


def make_image(fact: dict) -> None:
    try:
        run("podman", "pull", "--quiet", fact["name"], timeout_s=1700)
    except HostFault as fault:
        raise HostFault(
            f"{fault}. The host needs its registry, or a mirror of it in "
            "/etc/containers/registries.conf, and podman login where it wants a password"
        ) from None


def unit_differs(fact: dict) -> str:
    now = _unit(fact["name"])
    if now["LoadState"] != "loaded":
        return now["LoadState"]
    if now["ActiveState"] not in ("active", "reloading"):
        return now["ActiveState"]
    if fact["ours"] and now["UnitFileState"] != "enabled":
        return now["UnitFileState"] or "not enabled"
    if now["NeedDaemonReload"] == "yes":
        return "its unit file changed"
    changed_s = int(now["StateChangeTimestampMonotonic"]) / 1e6
    since = time.time() - time.monotonic() + changed_s
    newer = [path for path in fact["files"] if _changed_at(path) > since]
    return f"{newer[0]} changed after its start" if newer else ""


def make_unit(fact: dict) -> None:
    name = fact["name"]
    run("systemctl", "daemon-reload")
    if fact["ours"]:
        run("systemctl", "enable", "--quiet", name)
    act = "reload-or-restart" if fact["action"] == "reload" else "restart"
    try:
        run("systemctl", act, name)
        time.sleep(_SETTLE_S if name.endswith(".service") and act == "restart" else 0)
        state = _unit(name)["ActiveState"]
    except HostFault as fault:
        raise HostFault(f"{fault} See there: journalctl --unit {name}") from None
    if state != "active":
        raise HostFault(f"it was started and is {state}. See there: journalctl --unit {name}")


def unit_off_differs(fact: dict) -> str:
    now = _unit(fact["name"])
    if now["LoadState"] != "loaded":
        return ""
    if now["ActiveState"] in ("active", "reloading", "activating"):
        return now["ActiveState"]
    return now["UnitFileState"] if now["UnitFileState"] == "enabled" else ""


def make_unit_off(fact: dict) -> None:
    run("systemctl", "disable", "--quiet", "--now", fact["name"])


def _unit(name: str) -> dict:
    wanted = "LoadState,ActiveState,UnitFileState,NeedDaemonReload,StateChangeTimestampMonotonic"
    shown = run("systemctl", "show", name, "--property", wanted)
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def _changed_at(path: str) -> float:
    """The newest change of a file or a link, or of anything in a folder."""
    places = [path, *(str(one) for one in Path(path).rglob("*"))] if Path(path).is_dir() else [path]
    if Path(path).is_symlink():
        places = [path]
    return max((os.lstat(place).st_ctime for place in places if os.path.lexists(place)), default=0)


def _environment(fact: dict) -> Path:
    path = Path(fact["path"])
    return path.with_name(f"{path.name}-{fact['digest'][:DIGEST_LETTERS]}")


def _differs(fact: dict, right_kind, kind: str) -> str:  # type: ignore[no-untyped-def]
    try:
        now = os.lstat(fact["path"])
    except FileNotFoundError:
        return "missing"
    if not right_kind(now.st_mode):
        raise HostFault(f"{fact['path']} is not {kind}; take it away first")
    names = (fact["owner"], fact["group"])
    if not (_exists(pwd.getpwnam, names[0]) and _exists(grp.getgrnam, names[1])):
        return "owner"
    if (now.st_uid, now.st_gid) != _ids(fact):
        return "owner"
    return "" if stat.S_IMODE(now.st_mode) == fact["mode"] else "mode"


def _ids(fact: dict) -> tuple:
    return pwd.getpwnam(fact["owner"]).pw_uid, grp.getgrnam(fact["group"]).gr_gid


def _groups(name: str) -> set:
    return {entry.gr_name for entry in grp.getgrall() if name in entry.gr_mem}


def _exists(find, name: str) -> bool:  # type: ignore[no-untyped-def]
    try:
        find(name)
    except KeyError:
        return False
    return True


def _exchange(one: Path, other: Path) -> None:
    """Let two names swap what they stand for, in one step (renameat2, RENAME_EXCHANGE)."""
    libc = ctypes.CDLL(None, use_errno=True)
    here = -100  # AT_FDCWD
    if libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), 2):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))


KINDS = {
    "HostInterpreter": (interpreter_differs, make_interpreter),
    "HostPackages": (packages_differ, make_packages),
    "HostGroup": (group_differs, make_group),
    "HostAccount": (account_differs, make_account),
    "HostFolder": (folder_differs, make_folder),
    "HostFile": (file_differs, make_file),
    "HostFirstFile": (first_file_differs, make_file),
    "HostTree": (tree_differs, make_tree),
    "HostBinary": (binary_differs, make_binary),
    "HostEnvironment": (environment_differs, make_environment),
    "HostImage": (image_differs, make_image),
    "HostUnit": (unit_differs, make_unit),
    "HostUnitOff": (unit_off_differs, make_unit_off),
}
