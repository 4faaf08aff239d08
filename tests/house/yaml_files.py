"""The YAML files of `conf/` as text with the place of each key, and the targets that they name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from conf.plugin import targets
from tests.house.tree import REPO, name_of


@dataclass(frozen=True)
class YamlKey:
    """A key of a block mapping; keys of `{...}` on one line share the comment of that line."""

    file: str
    line: int
    path: tuple[str, ...]
    has_comment: bool
    """On its own line, or on the lines right above it."""
    target: str
    """`_target_` beside it, or ""."""
    is_leaf: bool
    """Its value is no block mapping, whose keys are explained by themselves."""


def yaml_files() -> list[Path]:
    return sorted((REPO / "conf").rglob("*.yaml"))


def config_targets() -> Iterator[tuple[str, str, str]]:
    """(file, config key, target) of every `_target_` of conf/."""
    for path in yaml_files():
        for key, target in targets(yaml.safe_load(path.read_text(encoding="utf-8")), ""):
            yield name_of(path), key, target


def yaml_keys(path: Path) -> Iterator[YamlKey]:
    """The keys of block mappings in a file, outer ones first."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    waiting: list[tuple[tuple[str, ...], yaml.Node | None]] = [((), yaml.compose(text))]
    while waiting:
        above, node = waiting.pop()
        if not isinstance(node, yaml.MappingNode) or node.flow_style:
            continue
        target = next((value.value for key, value in node.value if key.value == "_target_"), "")
        for key, value in node.value:
            number = key.start_mark.line
            commented = _comment(lines[number]) or (
                number > 0 and lines[number - 1].lstrip().startswith("# ")
            )
            leaf = not isinstance(value, yaml.MappingNode) or bool(value.flow_style)
            yield YamlKey(name_of(path), number + 1, (*above, key.value), commented, target, leaf)
            waiting.append(((*above, key.value), value))


def _comment(line: str) -> bool:
    """A ` # ` outside quotes; comments of ours begin with two spaces."""
    return "  # " in line
