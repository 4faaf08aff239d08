"""Projects: a folder outside Lockgate with somebody's configs and code, marked by lockgate.yaml.

Its `conf/` is searched before Lockgate's, its packages can be named by `_target_`, and its files
travel with every run beside Lockgate's own. Lockgate itself is never edited.
"""

from __future__ import annotations

import keyword
import os
import re
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

import yaml

from conf.errors import ConfigError
from conf.names import LETTERS, nearest_name, shown
from conf.plugin import OWN_PACKAGES
from conf.schema import SchemaError, build_dataclass
from conf.user import user_name

MARKER = "lockgate.yaml"
VARIABLE = "LOCKGATE_PROJECT"
"""Names the project of a process and of its children; set and empty means that there is none."""
NOT_IMPORTED = ("conftest", "fabfile", "setup", "tests")  # run by their own tools, by path


@dataclass(frozen=True)
class ProjectFile:
    """The keys of lockgate.yaml."""

    name: str
    """Name of the project and of its Python package."""
    site: str = "box"
    """Site that commands work with unless `site=NAME` is given: conf/site/NAME.yaml."""

    def __post_init__(self) -> None:
        if self.name != identifier(self.name):
            raise ValueError(
                f"name={shown(self.name)}: must be a Python identifier of at most {LETTERS} of the "
                f"letters A-Z a-z 0-9 _, such as {identifier(self.name)}"
            )


def identifier(text: str) -> str:
    """The name of a Python package nearest to `text`: itself where it is one, in ASCII."""
    plain = re.fullmatch(rf"[A-Za-z_]\w{{0,{LETTERS - 1}}}", text, re.ASCII)
    name = text if plain else re.sub(r"\W", "_", nearest_name(text), flags=re.ASCII)
    if name.isidentifier() and not keyword.iskeyword(name) and len(name) <= LETTERS:
        return name
    return f"my_{name[: LETTERS - 3]}" if name else "my_model"


@dataclass(frozen=True)
class Project:
    """A project: its folder (absolute), its name, and the site that it uses by default."""

    root: Path
    name: str
    site: str

    @property
    def conf(self) -> Path:
        """Its config tree, laid out as Lockgate's own: conf/GROUP/NAME.yaml."""
        return self.root / "conf"

    @property
    def marker(self) -> Path:
        """Its lockgate.yaml."""
        return self.root / MARKER


def find_project(start: Path | None = None) -> Project | None:
    """The project of $LOCKGATE_PROJECT, else of `start` or a folder above it; None without one.

    `start` is the working directory when left out. Raises `ConfigError` for a lockgate.yaml that
    is broken, and for one found on the way up that belongs to another person.
    """
    named = os.environ.get(VARIABLE)
    if named == "":
        return None
    if named is not None:
        return read_project(Path(named))
    try:
        folder = (start or Path.cwd()).resolve()
    except FileNotFoundError:  # the working directory was removed; nothing is above it
        return None
    for root in (folder, *folder.parents):
        if os.path.isfile(root / MARKER):  # noqa: PTH113  false, not an error, where not permitted
            _refuse_foreign(root)
            return read_project(root)
    return None


def read_project(root: Path) -> Project:
    """The project in `root`. Raises `ConfigError` with file and line for a broken lockgate.yaml."""
    root = root.resolve()
    path = root / MARKER
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{root} is no project: it has no {MARKER}. `lockgate new DIR` makes a project."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        content = yaml.safe_load(text)
        found: ProjectFile = build_dataclass(ProjectFile, content, "")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}:1: {' '.join(str(error).split())}") from None
    except SchemaError as error:
        raise ConfigError(f"{path}:{_line_of(str(error), text)}: {error}") from None
    return Project(root, found.name, found.site)


def enter_project(folder: str | None = None) -> Project | None:
    """Make the project's packages importable here and in child processes; None without a project.

    `folder` is what `--project` names. Raises `ConfigError` as `find_project` does, and for a
    package of the project that has the name of another one.
    """
    if folder is not None:
        os.environ[VARIABLE] = str(read_project(Path(folder)).root)
    project = find_project()
    if project is None:
        return None
    check_names(project)
    os.environ[VARIABLE] = str(project.root)
    if str(project.root) not in sys.path:
        sys.path.append(str(project.root))  # last: it cannot stand before anybody's packages
    return project


def _refuse_foreign(root: Path) -> None:
    """Code and settings are taken only from a person's own folder, or where they name it."""
    owner = (root / MARKER).stat().st_uid
    if owner in (os.getuid(), 0):
        return
    raise ConfigError(
        f"{root / MARKER} belongs to {user_name(owner)}. If you mean to run that project, name it: "
        f"--project {root} (or export {VARIABLE}={root})"
    )


def check_names(project: Project) -> None:
    """Raise `ConfigError` for a package of the project that has the name of another one."""
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != project.root]
    for name in sorted({project.name, *_top_level_modules(project.root)}):
        if name in OWN_PACKAGES:
            other = "Lockgate"
        elif name in sys.stdlib_module_names:
            other = "Python's standard library"
        else:
            spec = PathFinder.find_spec(name, elsewhere)
            if spec is None or spec.origin is None:
                continue
            other = spec.origin
        raise ConfigError(
            f"{project.root}: {name} is also a package of {other}, and would be taken for it. "
            f"Give it another name, in {MARKER} too if it is the project's."
        )


def _top_level_modules(root: Path) -> set[str]:
    modules = {path.stem for path in root.glob("*.py")}
    packages = {path.parent.name for path in root.glob("*/__init__.py")}
    return (modules | packages) - set(NOT_IMPORTED)


def _line_of(problem: str, text: str) -> int:
    """The line, from 1, of the top-level key that `problem` begins with; 1 for none of them."""
    key = re.match(r"\w*", problem)
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if key and isinstance(node, yaml.MappingNode):
        for name, _ in node.value:
            if name.value == key.group():
                return int(name.start_mark.line) + 1
    return 1
