"""Plug-ins by `_target_`: what is made, and what a person reads when a name or a key is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from conf import ConfigError
from conf.plugin import make_plugin, targets
from conf.schema import SchemaError, build, from_config


@dataclass(frozen=True)
class Inner:
    width: int = 3

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width={self.width}: must be at least 1")


@dataclass(frozen=True)
class Outer:
    rate: float
    betas: tuple[float, float] = (0.9, 0.95)
    inner: Inner = field(default_factory=Inner)
    kind: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = ()
    place: Path | None = None


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A foreign package `foreign_nouns` on the path, with one module that cannot be imported."""
    package = tmp_path / "foreign_nouns"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nouns.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\nclass Noun:\n    size: int = 1\n"
        "def scaled(value, by=2.0):\n    return value * by\n"
        "def picky(value):\n    raise ValueError('value must be blue')\n"
        "CONSTANT = 3\n"
    )
    (package / "broken.py").write_text("import nothing_of_this_name\n")
    (package / "raising.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_dataclass_a_function_and_a_partial_are_made() -> None:
    noun = make_plugin({"_target_": "foreign_nouns.nouns.Noun", "size": 4}, "model")
    assert noun.size == 4
    assert make_plugin({"_target_": "foreign_nouns.nouns.scaled", "by": 3.0}, "x", 2.0) == 6.0
    later = make_plugin({"_target_": "foreign_nouns.nouns.scaled", "_partial_": True}, "x")
    assert isinstance(later, partial) and later(2.0) == 4.0


def test_nested_targets_are_made_first() -> None:
    inner = {"_target_": "foreign_nouns.nouns.scaled", "value": 2.0}
    assert make_plugin({"_target_": "foreign_nouns.nouns.scaled", "value": inner}, "x") == 8.0
    assert [key for key, _ in targets({"a": {"_target_": "b.c", "d": [inner]}}, "")] == [
        "a",
        "a.d[0]",
    ]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"_target_": "foreign_nouns.nouns.Nuon"}, ("model._target_", "Nearest: Noun")),
        ({"_target_": "foreign_nouns.nuons.Noun"}, ("model._target_", "nouns")),
        ({"_target_": "foreign_noun.nouns.Noun"}, ("no package", "foreign_nouns")),
        ({"_target_": "foreign_nouns.nouns"}, ("is a module",)),
        ({"_target_": "foreign_nouns.nouns.CONSTANT"}, ("not a class or a function",)),
        ({"_target_": "foreign_nouns.broken.Noun"}, ("nothing_of_this_name",)),
        ({"_target_": "foreign_nouns.raising.Noun"}, ("no licence",)),
        ({"_target_": "rm -rf /"}, ("not a dotted path",)),
        ({"size": 3}, ("model._target_",)),
        ({"_target_": "foreign_nouns.nouns.Noun", "sise": 3}, ("model.sise", "Nearest: size")),
        ({"_target_": "foreign_nouns.nouns.Noun", "size": "three"}, ("model.size", "'three'")),
        ({"_target_": "foreign_nouns.nouns.scaled", "bi": 3}, ("model.bi", "Nearest: by")),
        ({"_target_": "foreign_nouns.nouns.scaled"}, ("missing", "value")),
        ({"_target_": "foreign_nouns.nouns.picky", "value": 1}, ("must be blue",)),
    ],
)
def test_a_wrong_target_or_key_is_refused_with_the_nearest_names(
    node: dict[str, object], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as error:
        make_plugin(node, "model")
    for word in words:
        assert word in str(error.value)


def test_values_become_typed_fields() -> None:
    made = from_config(Outer, {"rate": 1, "inner": {"width": 5}, "sizes": [1, 2]}, "optim")
    assert made == Outer(1.0, inner=Inner(5), sizes=(1, 2))
    assert from_config(Outer, {"rate": 1.5, "place": "/x"}, "optim").place == Path("/x")


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ({"rate": "fast"}, "optim.rate is 'fast'"),
        ({"rate": 1, "betas": [0.9]}, "optim.betas is [0.9], not a list of 2"),
        ({"rate": 1, "inner": {"width": 0}}, "optim.inner.width=0: must be at least 1"),
        ({"rate": 1, "inner": {"wdth": 2}}, "optim.inner.wdth is unknown here. Nearest: width"),
        ({"rate": 1, "kind": "c"}, "optim.kind is 'c', not one of a, b"),
        ({"rate": True}, "optim.rate is True"),
        ({}, "optim.rate is missing"),
        ({"rate": float("nan")}, "optim.rate is nan"),
    ],
)
def test_what_does_not_fit_names_its_key(node: dict[str, object], place: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_config(Outer, node, "optim")
    assert place in str(error.value)


def test_json_is_read_by_the_same_converter() -> None:
    assert build(tuple[int, ...], [1, 2]) == (1, 2)
    with pytest.raises(SchemaError, match=r"\[1\] is 'x'"):
        build(tuple[int, ...], [1, "x"])


def test_a_target_in_a_file_that_somebody_else_wrote_is_never_made() -> None:
    hostile = {"rate": 1.0, "inner": {"_target_": "foreign_nouns.raising.Noun"}}
    with pytest.raises(SchemaError, match="_target_ is unknown here"):
        build(Outer, hostile)
    with pytest.raises(ConfigError, match="no licence"):
        from_config(Outer, hostile, "optim")
