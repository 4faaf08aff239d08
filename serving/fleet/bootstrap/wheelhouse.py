"""The wheelhouse: everything that a host's serving environment is made of, on the control host.

`fab wheelhouse` makes it once from scripts/lock/serve.txt, with the internet or a mirror; hosts get
it over SSH and need neither. The list of requirements has the digest of every wheel, so that a host
installs these bytes and no others.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from serving.artifact.durable import replace_file, replace_folder
from serving.fleet.bootstrap.layout import BootstrapSettings
from serving.fleet.errors import FleetConfigError, FleetError

REQUIREMENTS = "requirements.txt"
NODE_EXPORTER = "node_exporter"


@dataclass(frozen=True)
class Wheelhouse:
    """A wheelhouse as it lies in `folder`. `requirements` pins each wheel by its digest;
    `node_exporter` is that program's digest, "" without one."""

    folder: Path
    requirements: str
    node_exporter: str = ""

    @property
    def wheels(self) -> int:
        """Number of packages."""
        return self.requirements.count("--hash")

    @property
    def size(self) -> int:
        """Bytes that a bare host is sent."""
        return sum(path.stat().st_size for path in self.folder.iterdir())


def read_wheelhouse(settings: BootstrapSettings) -> Wheelhouse:
    """The wheelhouse of the settings. Raises FleetConfigError where it is missing or older than
    the list of packages."""
    folder = settings.wheelhouse
    try:
        requirements = (folder / REQUIREMENTS).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FleetConfigError(
            f"there is no wheelhouse in {folder}: it has what hosts install. Type: fab wheelhouse"
        ) from None
    first = requirements.splitlines()[0]
    if first != _head(settings):
        raise FleetConfigError(
            f"the wheelhouse in {folder} is of another {settings.lock.name} or python than "
            f"{settings.python}. Type: fab wheelhouse"
        )
    program = folder / NODE_EXPORTER
    if bool(settings.node_exporter) != program.is_file():
        raise FleetConfigError(
            f"bootstrap.node_exporter={settings.node_exporter or 'none'} is not what the "
            f"wheelhouse in {folder} was made with. Type: fab wheelhouse"
        )
    return Wheelhouse(folder, requirements, _sha256(program) if program.is_file() else "")


def make_wheelhouse(settings: BootstrapSettings) -> Wheelhouse:
    """Download or build the wheels and put them in place, whole; the one from before then is gone.

    Raises FleetError for a package that pip does not get.
    """
    folder = settings.wheelhouse
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        python = f"/usr/bin/python{settings.python}"
        pip = [python, "-m", "venv", str(new / "env")]
        _run(pip, f"{python} with venv")
        pip = [str(new / "env/bin/python"), "-m", "pip", "--disable-pip-version-check"]
        wheels = new / "wheels"
        _run([*pip, "wheel", "--quiet", "--no-deps", "--no-input", "--wheel-dir", str(wheels),
              "--requirement", str(settings.lock)], f"the packages of {settings.lock}")  # fmt: skip
        _run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), "pip"], "pip")
        if settings.node_exporter:
            shutil.copy(settings.node_exporter, wheels / NODE_EXPORTER)
        replace_file(wheels / REQUIREMENTS, _requirements(settings, wheels))
        replace_folder(wheels, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return read_wheelhouse(settings)


def _requirements(settings: BootstrapSettings, wheels: Path) -> str:
    lines = [_head(settings)]
    for path in sorted(wheels.glob("*.whl")):
        name, version = path.name.split("-")[:2]
        lines.append(f"{name}=={version} --hash=sha256:{_sha256(path)}")
    return "\n".join(lines) + "\n"


def _head(settings: BootstrapSettings) -> str:
    return f"# python {settings.python}, {settings.lock.name} sha256:{_sha256(settings.lock)}"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _run(argv: list[str], what: str) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise FleetError(f"{argv[0]} is not there: it is needed to get {what}.") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = lines[-1] if lines else f"status {done.returncode}"
        raise FleetError(f"{what} could not be had for the wheelhouse: {reason}")
