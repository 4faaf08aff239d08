"""Any map-style dataset as arrays: every example once, in one split, memory-mapped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.errors import ConfigError
from hpc.data import lineage
from hpc.data.command import make_dataset
from hpc.data.prepare import prepare
from hpc.data.publish import Published
from hpc.data.refusal import DataRefused
from serving.artifact.splits import read_examples
from tests.datasets import quiet

SPLITS = ("train", "validation", "holdout")
SPLIT = {"fractions": {"train": 0.5, "validation": 0.25, "holdout": 0.25}, "seed": 0}
HERE = "tests.hpc.data.map_datasets"


def squares(count: int = 40, **settings: Any) -> dict[str, Any]:
    return {"_target_": f"{HERE}.Squares", "count": count, **settings}


def node(**changes: Any) -> dict[str, Any]:
    return {
        "_target_": "hpc.data.arrays.ArraysDataset",
        "name": "squares",
        "examples": squares(),
        "inputs": ["image"],
        "targets": ["label"],
        "split": SPLIT,
        **changes,
    }


def prepared(root: Path, **changes: Any) -> Published:
    return prepare(make_dataset(node(**changes)), root, quiet)


def test_one_dataset_is_shared_out(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    transform = json.loads((made.path / "transform.json").read_text())
    assert transform == {
        "kind": "arrays",
        "inputs": [{"name": "image", "dtype": "float32", "shape": [1, 4, 4]}],
        "targets": [{"name": "label", "dtype": "int64", "shape": []}],
        "group": None,
    }
    parts = {split: read_examples(made.path, split) for split in SPLITS}
    assert [len(parts[split].target) for split in SPLITS] == [20, 10, 10]
    images = np.concatenate([parts[split].inputs["image"] for split in SPLITS])
    from tests.hpc.data.map_datasets import Squares

    assert isinstance(parts["train"].inputs["image"], np.memmap)
    assert sorted(map(bytes, images)) == sorted(map(bytes, Squares(40).images))
    assert made.lineage.source["name"] == f"{HERE}.Squares"
    lineage.verify_dataset(made.path)


def test_the_content_alone_decides_whether_it_is_unchanged(tmp_path: Path) -> None:
    first = prepared(tmp_path)
    assert prepared(tmp_path).state == "unchanged"
    other = prepared(tmp_path, examples=squares(seed=1))
    assert other.state == "published" and other.path != first.path


def test_a_dataset_for_each_split(tmp_path: Path) -> None:
    examples = {split: squares(10, seed=place) for place, split in enumerate((*SPLITS, "later"))}
    made = prepared(tmp_path, examples=examples, split=None)
    from tests.hpc.data.map_datasets import Squares

    for place, split in enumerate((*SPLITS, "later")):
        found = read_examples(made.path, split).inputs["image"]
        assert np.array_equal(found, Squares(10, seed=place).images)


def test_mappings_with_a_group(tmp_path: Path) -> None:
    made = prepared(
        tmp_path,
        examples={"_target_": f"{HERE}.Pairs"},
        inputs=["left", "right"],
        targets=["sum"],
        group="person",
    )
    parts = [read_examples(made.path, split) for split in SPLITS]
    people = [set(part.group.tolist()) for part in parts]
    assert [len(one) for one in people] == [6, 3, 3] and len(set().union(*people)) == 12
    for part in parts:
        assert np.array_equal(part.inputs["right"] * 3, part.target)
        assert np.array_equal(part.inputs["left"][:, 0] * 1.5, part.target)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"examples": squares(bad="shape")}, r"'image' of example 5 is float32 \[1, 3, 4\], .* fi"),
        ({"examples": squares(bad="dtype")}, "'image' of example 5 is float64"),
        ({"examples": squares(bad="nan")}, "'image' of example 5 has NaN"),
        ({"examples": squares(bad="text")}, "'image' of example 5 is <U5, not an array of numbers"),
        ({"examples": squares(bad="length")}, "example 5 has 3 values; .* name 2: image, label"),
        ({"examples": squares(2)}, "the split '.*' has no rows"),
        ({"examples": {"_target_": f"{HERE}.Empty"}}, "Empty has no examples"),
        ({"examples": {"_target_": f"{HERE}.Pairs"}}, r"example 0 has no 'image' \(found: left"),
    ],
)
def test_bad_examples_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(DataRefused, match=message):
        prepared(tmp_path, **changes)
    assert not (tmp_path / "squares" / "current").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": None}, "data.split is missing"),
        ({"inputs": []}, r"data\.inputs=\[\]: name at least one"),
        ({"inputs": ["label"]}, "'label' is no name, or there twice"),
        ({"inputs": ["../x"]}, "'../x' is no name"),
        ({"examples": {"train": squares()}}, "or one for each of train, validation, holdout"),
        ({"examples": {split: squares() for split in SPLITS}}, "data.split: .* split already"),
        ({"examples": {"_target_": f"{HERE}.Square"}}, r"data\.examples\..* Nearest: .*Squares"),
        ({"examples": {"_target_": f"{HERE}.number"}}, "has no length"),
    ],
)
def test_a_wrong_setting_is_a_config_error(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepared(tmp_path, **changes)
