"""`lockgate new DIR`: a small working project of one kind, to be made one's own."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from conf.errors import ConfigError, LockgateError
from conf.project import Project, ProjectFile, check_names, identifier

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
COMMON = "common"  # files of every kind
PLACEHOLDER = "example_project"  # stands for the project's name in file names and in text
IGNORE_FILE = "gitignore"  # under its own name, git would heed it in Lockgate's own checkout

DESCRIPTION = """\
Make a project: configs, a package where the kind needs one, a test, and a README with the commands.
It works as it is made; change it piece by piece into yours.
"""
EPILOG = """\
kinds:
  tabular       a CSV or Parquet table; no Python at all
  text          a language model of text files; no Python at all
  module        any torch.nn.Module on any torch dataset, with a gate of one's own
  transformers  a Hugging Face classifier of texts; no Python at all
"""


class NotMade(LockgateError):
    """The project could not be written; nothing is left of it."""


def main(argv: Sequence[str]) -> int:
    """Run `lockgate new ARGV`."""
    parser = argparse.ArgumentParser(
        prog="lockgate new",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="DIR", help="its last part is the project's name")
    parser.add_argument("--kind", choices=kinds(), default="tabular", help="default: tabular")
    options = parser.parse_args(list(argv))
    project = make_project(Path(options.folder), options.kind)
    print(
        f"made {project.root}, a project of kind {options.kind}\n"
        f"  try it: cd {options.folder} && python -m pytest\n"
        "  then follow its README.md"
    )
    return 0


def kinds() -> list[str]:
    """The kinds of project that there are templates for."""
    return sorted(path.name for path in TEMPLATES.iterdir() if path.name != COMMON)


def make_project(folder: Path, kind: str) -> Project:
    """Write a project of `kind`, named as its folder, whole or not at all.

    Raises `ConfigError` for a folder that is not empty and for a name that no package can have.
    """
    root = folder.resolve()
    try:
        found = ProjectFile(root.name)
    except ValueError as error:
        valid = shlex.quote(str(folder.parent / identifier(root.name)))
        raise ConfigError(
            f"{error}; the folder's name is the project's. Type: lockgate new {valid}"
        ) from None
    project = Project(root, found.name, found.site)
    check_names(project)
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise ConfigError(f"{root} is there already and not an empty folder; nothing was written")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}-"))
    except OSError as error:
        raise NotMade(f"{root} cannot be made: {error}") from error
    try:
        for part in (COMMON, kind):
            _copy(TEMPLATES / part, staging, project.name)
        staging.chmod(0o777 & ~_umask())
        staging.rename(root)  # an empty folder is replaced
    except OSError as error:
        raise NotMade(f"{root} was not made: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # there is none when it was renamed
    return project


def _copy(template: Path, target: Path, name: str) -> None:
    for path in sorted(template.rglob("*")):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        relative = str(path.relative_to(template)).replace(PLACEHOLDER, name)
        if relative == IGNORE_FILE:
            relative = f".{relative}"
        written = target / relative
        written.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8").replace(PLACEHOLDER, name)
        written.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
