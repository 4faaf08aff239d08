"""The config tree: what composes, and what a person reads when an override is wrong."""

from pathlib import Path

import pytest

from conf import ConfigError, compose, tree


@pytest.fixture(autouse=True)
def small_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for group, option, text in [
        ("model", "small", "width: 3"),
        ("optim", "adam", "lr: 1.0"),
    ]:
        (tmp_path / group).mkdir()
        (tmp_path / group / f"{option}.yaml").write_text(text)
    (tmp_path / "train.yaml").write_text(
        "defaults:\n  - model: ???\n  - optim: adam\n  - _self_\nsteps: 3\nroot: ${repo:}\n"
    )
    monkeypatch.setattr(tree, "TREE", tmp_path)


def test_overrides_reach_the_composed_config() -> None:
    config = compose("train", ["model=small", "optim.lr=0.5"])
    assert (config.model.width, config.optim.lr, config.steps) == (3, 0.5, 3)


def test_repo_resolves_to_the_folder_that_holds_the_tree(tmp_path: Path) -> None:
    assert compose("train", ["model=small"]).root == str(tmp_path.parent)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model=smal", "small"),
        ("modle=small", "model"),
        ("optim.lrr=3", "optim.lr"),
        ("lr=3", "optim.lr"),
        ("step=4", "steps"),
    ],
)
def test_a_mistyped_override_names_the_nearest(override: str, named: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose("train", ["model=small", override] if "small" not in override else [override])
    assert named in str(error.value).split("Nearest:")[1]
    assert override.split("=")[0] in str(error.value)


def test_a_choice_that_is_left_out_is_asked_for_with_the_options() -> None:
    with pytest.raises(ConfigError, match="model: choose one of small"):
        compose("train", [])


def test_an_override_that_does_not_parse_says_how_to_write_one() -> None:
    with pytest.raises(ConfigError, match="write key=value"):
        compose("train", ["model=small", "a b=3"])
