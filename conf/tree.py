"""Compose a primary config with a person's overrides, and name the nearest key on a typo.

A project's `conf/` is searched before Lockgate's own, as Hydra searches its path.
See https://hydra.cc/docs/advanced/search_path/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.errors import ConfigError
from conf.names import nearest
from conf.overrides import text_quoted, unparsed
from conf.project import Project, find_project

TREE = Path(__file__).resolve().parent


def repo_root() -> Path:
    """The folder that holds `conf/`: the checkout, or the source snapshot a job runs from."""
    return TREE.parent


def project_root() -> Path:
    """The folder of the project that this command works in. Raises `ConfigError` without one."""
    project = find_project()
    if project is None:
        raise ConfigError(
            "${project:} is the folder of a project, and this command works in none. "
            "Change into one, or name it with --project DIR."
        )
    return project.root


OmegaConf.register_new_resolver("repo", lambda: str(repo_root()), replace=True)
OmegaConf.register_new_resolver("project", lambda: str(project_root()), replace=True)


class ProjectSearchPath(SearchPathPlugin):
    """Hydra's search path with the project's `conf/` before Lockgate's."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra each time that a config is composed."""
        project = find_project()
        if project and project.conf.is_dir():
            search_path.prepend("project", f"file://{project.conf}")


def compose(primary: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose `conf/<primary>.yaml` with `overrides` in Hydra's grammar.

    The site is the project's unless an override names one. The result is in struct mode: reading a
    key that does not exist raises. Raises `ConfigError` for an override that does not parse, or
    names a key, a group or an option that is not there, and for a config file that is broken.
    """
    texts = [text_quoted(text) for text in overrides]
    site = _project_site(primary, texts)
    Plugins.instance().register(ProjectSearchPath)  # a second time changes nothing
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(TREE), version_base="1.3", job_name=primary):
            return hydra_compose(config_name=primary, overrides=[*site, *texts])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        # ValueError: Hydra's for a group without an option, as in cluster=null.
        raise ConfigError(_explain(primary, texts, error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(" ".join(str(error).split())) from error


def options(group: str) -> list[str]:
    """The choices of a config group, such as `options("task") == ["flights", "lm"]`."""
    return sorted(option_files(group))


def option_files(group: str) -> dict[str, Path]:
    """The file of each choice of a config group; a project's comes before Lockgate's."""
    found = [path for tree in reversed(_trees()) for path in (tree / group).glob("*.yaml")]
    return {path.stem: path for path in found}


def groups() -> list[str]:
    """Every config group, such as `cluster`, `model` or `site`."""
    return sorted(
        {
            path.parent.relative_to(tree).as_posix()
            for tree in _trees()
            for path in tree.glob("*/**/*.yaml")
        }
    )


def _trees() -> list[Path]:
    """The folders that are searched for configs, in the order of the search."""
    project = find_project()
    return [project.conf, TREE] if project else [TREE]


def _project_site(primary: str, overrides: list[str]) -> list[str]:
    """The override that chooses the project's site; none where it was chosen, or there is none."""
    project = find_project()
    chosen = any(text.partition("=")[0].lstrip("+~") == "site" for text in overrides)
    if project is None or chosen or not _has_site(primary):
        return []
    _refuse_unknown_site(project)
    return [f"site={project.site}"]


def _refuse_unknown_site(project: Project) -> None:
    sites = options("site")
    if project.site not in sites:
        raise ConfigError(
            f"{project.marker}: site: {project.site}: there is no such site; it would be "
            f"{project.conf}/site/{project.site}.yaml. {nearest(project.site, sites)}"
        )


def _has_site(primary: str) -> bool:
    """True when the defaults list of the primary config chooses a site."""
    files = [tree / f"{primary}.yaml" for tree in _trees()]
    file = next((path for path in files if path.is_file()), None)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) if file else None
    except yaml.YAMLError:  # composing it says where it is broken
        return False
    defaults = content.get("defaults") if isinstance(content, dict) else None
    return any(isinstance(item, dict) and "site" in item for item in defaults or [])


def _explain(primary: str, overrides: list[str], error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    valid = [*groups(), *_keys_of(primary, overrides)]
    parsed = []
    for text in overrides:
        try:
            parsed.append((OverridesParser.create().parse_override(text), text))
        except HydraException:
            return unparsed(text)
    # Groups first: with a choice that is not there, no key of a chosen file is there either.
    for override, text in sorted(parsed, key=lambda one: one[0].key_or_group not in groups()):
        key = override.key_or_group
        if key in groups():
            choice, choices = override.value(), options(key)
            if choice is None:
                return f"{key}: choose one of {', '.join(choices)}, as in {key}={choices[0]}"
            if isinstance(choice, str) and choice not in choices:
                return f"{key}={choice}: there is no such {key}. {nearest(choice, choices)}"
        elif key not in valid and not override.is_add():
            parent = key.rpartition(".")[0].partition(".")[0]
            if parent in valid and not any(one.startswith(f"{parent}.") for one in valid):
                return f"{key} is not there yet; to add it to {parent}, type +{text}"
            return f"{key}: there is no such key in {primary}. {nearest(key, valid)}"
    missing = re.search(r"You must specify '([\w/]+)'", str(error))
    if missing:
        group = missing.group(1)
        return (
            f"{group}: choose one of {', '.join(options(group))}, as in {group}={options(group)[0]}"
        )
    return reason


def _keys_of(primary: str, overrides: list[str]) -> list[str]:
    """The keys of the tree with the group choices that do compose, to look for near names in."""
    choices = [text for text in overrides if text.split("=", 1)[0] in groups()]
    for attempt in (choices, []):
        try:
            with initialize_config_dir(config_dir=str(TREE), version_base="1.3"):
                return list(_flatten(hydra_compose(config_name=primary, overrides=attempt)))
        except (HydraException, OmegaConfBaseException, ValueError):
            continue
    return []


def _flatten(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, node):
        name = f"{prefix}{key}"
        yield name
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            child = node[key]
            if isinstance(child, DictConfig):
                yield from _flatten(child, f"{name}.")
