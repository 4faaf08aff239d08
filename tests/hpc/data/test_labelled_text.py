"""Texts with labels: whole groups, classes and tokenizer of the training split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from conf.errors import ConfigError
from hpc.data.command import make_dataset
from hpc.data.prepare import prepare
from hpc.data.publish import Published
from hpc.data.refusal import DataRefused
from serving.artifact.splits import read_examples
from tests.datasets import quiet, write_csv

SPLITS = ("train", "validation", "holdout")
WORDS = {"good": ["fine", "great", "lovely"], "bad": ["poor", "awful", "dull"]}


def rows(count: int = 120) -> dict[str, list[str]]:
    draw = np.random.default_rng(0)
    labels = draw.choice(list(WORDS), count).tolist()
    texts = [" ".join(draw.choice(WORDS[label], 6)) + f" — {n}" for n, label in enumerate(labels)]
    return {"review": texts, "mood": labels, "author": [f"a{n % 20}" for n in range(count)]}


def node(path: Path, **changes: Any) -> dict[str, Any]:
    return {
        "_target_": "hpc.data.labelled_text.LabelledTextDataset",
        "name": "reviews",
        "source": {"files": {"rows": str(path)}},
        "text": "review",
        "label": "mood",
        "max_tokens": 12,
        "vocab_size": 300,
        "split": {"fractions": {"train": 0.6, "validation": 0.2, "holdout": 0.2}},
        **changes,
    }


def prepared(tmp_path: Path, found: dict[str, list[Any]], **changes: Any) -> Published:
    path = tmp_path / "reviews.csv"
    write_csv(pa.table(found), path)
    return prepare(make_dataset(node(path, **changes)), tmp_path / "data", quiet)


def test_labels_tokenizer_and_splits(tmp_path: Path) -> None:
    made = prepared(tmp_path, rows(), group="author")
    transform = json.loads((made.path / "transform.json").read_text())
    assert transform == {
        "kind": "labelled-text",
        "labels": ["bad", "good"],
        "text": "review",
        "label": "mood",
        "group": "author",
        "max_tokens": 12,
        "pad_id": 0,
        "vocab_size": 300,
    }
    parts = [read_examples(made.path, split) for split in SPLITS]
    authors = [set(part.group.tolist()) for part in parts]
    assert [len(one) for one in authors] == [12, 4, 4] and len(set().union(*authors)) == 20
    found = rows()
    label_of = dict(zip(found["review"], found["mood"], strict=True))
    for part in parts:
        labels = [transform["labels"][place] for place in part.target]
        assert [label_of[text] for text in part.inputs["text"]] == labels
    tokenizer = Tokenizer.from_file(str(made.path / "tokenizer.json"))
    text = parts[2].inputs["text"][0]
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_tokenizer_has_seen_train_alone(tmp_path: Path) -> None:
    made = prepared(tmp_path, rows())
    held = set(read_examples(made.path, "holdout").inputs["text"])
    found = rows()
    # Without a group a row's split comes of its content; a group keeps the splits as they were.
    found["author"] = ["held" if one in held else str(n) for n, one in enumerate(found["review"])]
    by_group = prepared(tmp_path, found, group="author")
    held = set(read_examples(by_group.path, "holdout").inputs["text"])
    found["review"] = ["zyzzyva " * 9 + one if one in held else one for one in found["review"]]
    again = prepared(tmp_path, found, group="author")
    assert again.lineage.digest != by_group.lineage.digest
    tokenizers = [(one.path / "tokenizer.json").read_bytes() for one in (by_group, again)]
    assert tokenizers[0] == tokenizers[1]


def test_a_tokenizer_of_ones_own(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "fine": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(pad_id=1, pad_token="[PAD]")
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "own.json"))
    source = {
        "files": {"rows": str(tmp_path / "reviews.csv"), "tokenizer": str(tmp_path / "own.json")}
    }
    made = prepared(tmp_path, rows(), source=source, vocab_size=0)
    transform = json.loads((made.path / "transform.json").read_text())
    assert (transform["pad_id"], transform["vocab_size"]) == (1, 3)
    stored = Tokenizer.from_file(str(made.path / "tokenizer.json"))
    assert len(stored.encode("fine fine fine fine").ids) == 4  # the dataset's max_tokens cuts
    assert [file["path"] for file in made.lineage.source["files"]] == ["reviews.csv", "own.json"]
    with pytest.raises(DataRefused, match=r"own.json has no padding token '\[PAT\]'"):
        prepared(tmp_path, rows(), source=source, vocab_size=0, pad_token="[PAT]")
    (tmp_path / "own.json").write_text("{}")
    with pytest.raises(DataRefused, match=r"own.json is not a tokenizer.json"):
        prepared(tmp_path, rows(), source=source, vocab_size=0)


def test_parquet_with_numbers_as_labels(tmp_path: Path) -> None:
    found = {**rows(), "mood": [place % 11 for place in range(120)]}
    path = tmp_path / "reviews.parquet"
    pq.write_table(pa.table(found), path)
    made = prepare(make_dataset(node(path)), tmp_path / "data", quiet)
    labels = json.loads((made.path / "transform.json").read_text())["labels"]
    assert labels == [str(number) for number in range(11)]


def spoiled(column: str, value: str) -> dict[str, list[str]]:
    found = rows()
    found[column][3] = value
    return found


@pytest.mark.parametrize(
    ("found", "changes", "message"),
    [
        (spoiled("review", ""), {}, "'review' of reviews.csv has 1 empty values, .* row 4"),
        (spoiled("mood", "NA"), {}, "'mood' of reviews.csv has 1 empty values, .* row 4"),
        (rows(), {"text": "reviev"}, "'reviev' is missing in reviews.csv"),
        (rows(), {"group": "writer"}, "'writer' is missing in reviews.csv"),
        ({**rows(), "mood": ["good"] * 120}, {}, "'mood' is 'good' in every row"),
        ({**rows(), "mood": [f"m{n}" for n in range(120)]}, {}, "that train lacks: m"),
        (rows(3), {}, "the split '.*' has no rows"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, found: dict, changes: dict, message: str) -> None:
    with pytest.raises(DataRefused, match=message):
        prepared(tmp_path, found, **changes)
    assert not (tmp_path / "data" / "reviews" / "current").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": 0}, r"data\.max_tokens=0: must be at least 1"),
        ({"vocab_size": 0}, r"data\.vocab_size=0: use 257"),
        ({"label": "review"}, "must be different columns"),
        ({"source": {"files": {"row": "x.csv"}}}, "needs 'rows', and may have 'tokenizer'"),
        ({"pad_token": "[PAD]"}, r"data\.pad_token=\[PAD\]: is of a tokenizer"),
    ],
)
def test_a_wrong_setting_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_dataset(node(Path("x.csv"), **changes))
