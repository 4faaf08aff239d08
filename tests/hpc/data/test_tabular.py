"""An ordinary CSV or Parquet as a dataset: read right, or refused by file, column and row."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.errors import ConfigError
from hpc.data.command import make_dataset
from hpc.data.prepare import prepare
from hpc.data.publish import Published
from hpc.data.refusal import DataRefused
from serving.artifact.splits import read_examples
from serving.runtime.features import Angle, Category, Number
from serving.runtime.tabular_transform import load_transform
from tests.datasets import quiet

ROWS = 240
SPLITS = ("train", "validation", "holdout")


def table(rows: int = ROWS) -> dict[str, list[Any]]:
    draw = np.random.default_rng(0)
    size = draw.uniform(1, 9, rows).round(3)
    return {
        "id": [f"row {row}" for row in range(rows)],
        "colour": draw.choice(["red", "green", "blue"], rows).tolist(),
        "size": size.tolist(),
        "wind": draw.uniform(0, 360, rows).round(1).tolist(),
        "farm": [f"f{row % 24}" for row in range(rows)],
        "when": [f"2020-{1 + row % 12:02d}-0{1 + row % 9}" for row in range(rows)],
        "species": np.where(size > 6, "oak", np.where(size > 3, "elm", "ash")).tolist(),
        "price": (size * 100 + 7).round(2).tolist(),
        "sold": np.where(size > 5, "yes", "no").tolist(),
    }


def csv_text(columns: dict[str, list[Any]]) -> str:
    lines = [",".join(columns)]
    lines += [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    return "\n".join(lines) + "\n"


def node(path: Path, **changes: Any) -> dict[str, Any]:
    return {
        "_target_": "hpc.data.tabular.TabularDataset",
        "name": "trees",
        "source": {"files": {"trees": str(path)}},
        "features": [
            {"name": "colour", "kind": "category"},
            {"name": "size", "kind": "number"},
            {"name": "wind", "kind": "angle", "nullable": True},
        ],
        "target": {"name": "price", "kind": "regression"},
        "split": {"fractions": {"train": 0.7, "validation": 0.15, "holdout": 0.15}, "seed": 1},
        **changes,
    }


def prepared(tmp_path: Path, text: str | bytes, name: str = "trees.csv", **changes: Any):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return prepare(make_dataset(node(path, **changes)), tmp_path / "data", quiet)


def all_rows(dataset: Published, column: str) -> list[Any]:
    return [
        value
        for split in dataset.lineage.splits
        for value in pq.read_table(dataset.path / f"{split}.parquet")[column].to_pylist()
    ]


def test_regression_from_one_csv(tmp_path: Path) -> None:
    columns = table()
    made = prepared(tmp_path, csv_text(columns))
    assert list(made.lineage.splits) == list(SPLITS)
    assert [made.lineage.splits[split]["rows"] for split in SPLITS] == [168, 36, 36]
    assert sorted(all_rows(made, "price")) == sorted(columns["price"])
    transform = load_transform(made.path / "transform.json")
    train = read_examples(made.path, "train")
    assert train.group is None and train.target.dtype == np.float64
    target = transform.target
    assert (target.kind, target.output, target.classes) == ("regression", "price", None)
    assert target.mean == pytest.approx(train.target.mean(), abs=1e-6)
    assert target.scale == pytest.approx(train.target.std(), abs=1e-6)
    colour, size, wind = transform.features
    assert isinstance(colour, Category) and colour.vocabulary == ("blue", "green", "red")
    assert isinstance(size, Number) and isinstance(wind, Angle)
    encoded = transform.encode(train.inputs)
    assert encoded["categories"].shape == (168, 1) and encoded["numbers"].shape == (168, 4)
    assert abs(encoded["numbers"][:, 0].mean()) < 1e-5


def test_a_number_without_bounds_takes_any_finite_value(tmp_path: Path) -> None:
    made = prepared(tmp_path, csv_text(table()))
    transform = load_transform(made.path / "transform.json")
    raw = {"colour": np.array(["red"], object), "size": np.array([1e30], np.float32)}
    assert transform.encode(raw)["numbers"][0, 0] == 8  # clipped, in standard deviations
    with pytest.raises(ValueError, match=r"size\[0\] is inf"):
        transform.encode({**raw, "size": np.array([np.inf], np.float32)})


def test_classes_are_those_of_train(tmp_path: Path) -> None:
    target = {"name": "species", "kind": "multiclass"}
    made = prepared(tmp_path, csv_text(table()), target=target)
    transform = load_transform(made.path / "transform.json")
    assert transform.target.classes == ("ash", "elm", "oak")
    examples = read_examples(made.path, "holdout")
    words = pq.read_table(made.path / "holdout.parquet")["species"].to_pylist()
    assert [transform.target.classes[place] for place in examples.target] == words


def test_classes_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    columns = {**table(), "digit": [row % 12 for row in range(ROWS)]}
    made = prepared(tmp_path, csv_text(columns), target={"name": "digit", "kind": "multiclass"})
    classes = load_transform(made.path / "transform.json").target.classes
    assert classes == tuple(str(digit) for digit in range(12))


@pytest.mark.parametrize(
    ("target", "ones"),
    [
        ({"name": "sold", "kind": "binary", "positive": "yes"}, "yes"),
        ({"name": "dear", "kind": "binary", "column": "price", "above": 507.0}, None),
    ],
)
def test_binary_targets(tmp_path: Path, target: dict[str, Any], ones: str | None) -> None:
    columns = table()
    made = prepared(tmp_path, csv_text(columns), target=target)
    wanted = columns["sold"].count(ones) if ones else sum(price > 507 for price in columns["price"])
    assert sum(all_rows(made, target["name"])) == wanted
    output = load_transform(made.path / "transform.json").target.output
    assert output == f"{target['name']}_probability"


def test_groups_stay_whole_and_are_read_back(tmp_path: Path) -> None:
    made = prepared(tmp_path, csv_text(table()), group="farm")
    farms = {split: set(read_examples(made.path, split).group.tolist()) for split in SPLITS}
    assert [len(farms[split]) for split in SPLITS] == [17, 3, 4]
    assert not farms["train"] & farms["validation"] and not farms["validation"] & farms["holdout"]
    assert made.lineage.splits["train"]["groups"] == 17


def test_splits_cut_by_time(tmp_path: Path) -> None:
    split = {
        "fractions": {"train": 1.0},
        "time": "when",
        "cuts": {"validation": "2020-07-01", "holdout": "2020-10-01"},
    }
    made = prepared(tmp_path, csv_text(table()), split=split)
    months = [int(day[5:7]) for day in table()["when"]]
    wanted = [sum(a <= month < b for month in months) for a, b in ((1, 7), (7, 10), (10, 13))]
    assert [made.lineage.splits[name]["rows"] for name in SPLITS] == wanted


def test_rows_are_dropped_by_reason_and_counted(tmp_path: Path) -> None:
    columns = table()
    columns["price"][:3] = ["NA", "", "NA"]
    columns["size"][1:5] = [8.5] * 4
    drop = {"unlabelled": "price IS NULL", "big": "size = 8.5"}
    made = prepared(tmp_path, csv_text(columns), drop=drop)
    assert made.lineage.notes["dropped_rows"] == {"unlabelled": 3, "big": 2}
    assert len(all_rows(made, "price")) == ROWS - 5


def test_missing_values_are_read_as_declared(tmp_path: Path) -> None:
    columns = table()
    columns["wind"][:4] = ["", "NA", "-", "nan"]
    csv = {"missing": ["", "NA", "-"]}
    made = prepared(tmp_path, csv_text(columns), csv=csv)
    assert sum(value is None or np.isnan(value) for value in all_rows(made, "wind")) == 4
    with pytest.raises(DataRefused, match=r"'wind' of trees\.csv must be float: row 3 has '-'"):
        prepared(tmp_path, csv_text(columns))


def test_a_csv_as_other_programs_write_it(tmp_path: Path) -> None:
    """Byte order mark, CRLF, semicolons, quoted names, delimiters, line ends in values."""
    columns = table()
    columns["id"] = [f'"a ""b""; c\r\nd {row}"' for row in range(ROWS)]
    columns["colour"] = ['"red; or"' if one == "red" else one for one in columns["colour"]]
    columns["price"] = [f" {price} " for price in columns["price"]]
    text = csv_text({f'"{name}"': values for name, values in columns.items()})
    text = text.replace(",", ";").replace("\r\n", "\n").replace("\n", "\r\n")
    plain = prepared(tmp_path, csv_text(table()))
    made = prepared(tmp_path, "\ufeff" + text, csv={"delimiter": ";"})
    colours = all_rows(made, "colour")
    assert colours.count("red; or") == table()["colour"].count("red")
    assert sorted(all_rows(made, "price")) == sorted(all_rows(plain, "price"))


def test_a_column_can_be_mapped_to_a_name_that_can_be_served(tmp_path: Path) -> None:
    text = csv_text(table()).replace("size", "size (m)", 1)
    made = prepared(tmp_path, text, columns={"trees": {"size": "size (m)"}})
    plain = prepared(tmp_path / "x", csv_text(table()))
    assert made.lineage.digest == plain.lineage.digest


def test_packed_csv_and_parquet_give_the_same_splits(tmp_path: Path) -> None:
    columns = table()
    plain = prepared(tmp_path, csv_text(columns))
    packed = prepared(tmp_path, gzip.compress(csv_text(columns).encode()), "trees.csv.gz")
    path = tmp_path / "trees.parquet"
    pq.write_table(pa.table(columns), path)
    parquet = prepare(make_dataset(node(path)), tmp_path / "data", quiet)
    assert plain.lineage.digest == packed.lineage.digest == parquet.lineage.digest


def test_no_categories_or_no_numbers(tmp_path: Path) -> None:
    for features, shapes in (
        ([{"name": "colour", "kind": "category"}], (1, 0)),
        ([{"name": "size", "kind": "number"}], (0, 1)),
    ):
        made = prepared(tmp_path, csv_text(table()), features=features)
        encoded = load_transform(made.path / "transform.json").encode(
            read_examples(made.path, "holdout").inputs
        )
        rows = made.lineage.splits["holdout"]["rows"]
        assert encoded["categories"].shape == (rows, shapes[0])
        assert encoded["numbers"].shape == (rows, shapes[1])


def test_constant_and_tiny_columns(tmp_path: Path) -> None:
    columns = table()
    columns["constant"] = [0.1] * ROWS
    columns["tiny"] = [one * 1e-9 for one in columns["size"]]
    features = [{"name": name, "kind": "number"} for name in ("constant", "tiny")]
    made = prepared(tmp_path, csv_text(columns), features=features)
    transform = load_transform(made.path / "transform.json")
    numbers = transform.encode(read_examples(made.path, "train").inputs)["numbers"]
    assert transform.numbers[0].scale == 1.0 and abs(numbers[:, 0]).max() < 1e-6
    assert numbers[:, 1].std() == pytest.approx(1, abs=1e-3)


def with_value(column: str, row: int, value: str) -> str:
    columns = table()
    columns[column][row] = value
    return csv_text(columns)


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        (csv_text(table()).replace("wind", "size", 1), {}, "'size' occurs twice in the header"),
        (with_value("size", 4, "big"), {}, "'size' of trees.csv must be float: row 5 has 'big'"),
        (with_value("size", 4, "nan"), {}, "'size' of trees.csv must be float: row 5 has 'nan'"),
        (with_value("size", 4, ""), {}, "'size' of trees.csv has 1 empty values, .* row 5"),
        (with_value("price", 9, ""), {}, "'price' of trees.csv has 1 empty values, .* row 10"),
        (with_value("price", 9, "inf"), {}, "'price' of .*trees.csv is the target: row 10 has inf"),
        (with_value("colour", 2, "x" * 65), {}, "colour has a value of 65 bytes; 64 at most"),
        (with_value("size", 0, '"1'), {}, "trees.csv is not a CSV table"),
        (csv_text(table()) + "1,2\n", {}, "trees.csv is not a CSV table: .*Expected 9 columns"),
        (csv_text(table()).encode("utf-16"), {}, "trees.csv is not UTF-8 in line 1"),
        (
            csv_text(table()).encode() + b"\xff\xfe",
            {},
            f"trees.csv is not UTF-8 in line {ROWS + 2}",
        ),
        (csv_text(table(3)), {}, "the split 'holdout' has no rows"),
        (
            csv_text(table()),
            {"target": {"name": "sold", "kind": "binary"}},
            "'sold' of .* must be 0 or 1: row 1 has '(yes|no)'. Name the positive value",
        ),
        (
            csv_text({**table(), "same": ["a"] * ROWS}),
            {"target": {"name": "same", "kind": "multiclass"}},
            "'same' is 'a' in every row of the split 'train'",
        ),
        (
            csv_text({**table(), "sold": [1] * ROWS}),
            {"target": {"name": "sold", "kind": "binary"}},
            "'sold' is 1 in every row of the split 'train'",
        ),
        (
            csv_text({**table(), "rare": ["a", "b", *(f"c{row}" for row in range(ROWS - 2))]}),
            {"target": {"name": "rare", "kind": "multiclass"}},
            "'rare' has classes in the split 'validation' that train lacks: c",
        ),
        (csv_text(table()), {"group": "village"}, "column 'village' is missing in .*trees.csv"),
        (csv_text(table()), {"drop": {"odd": "sise > 3"}}, 'data.drop: Binder Error: .*"sise"'),
        (csv_text(table()), {"query": "SELECT * FROM tree"}, "data.query: Catalog Error: .*tree"),
        (csv_text(table()), {"query": "CREATE MACRO one() AS 1"}, "last statement is no SELECT"),
        (
            csv_text(table()),
            {
                "split": {
                    "fractions": {"train": 1.0},
                    "time": "when",
                    "cuts": {"validation": "soon", "holdout": "2020-10-01"},
                }
            },
            "data.split.cuts.validation=soon: column 'when' is timestamp",
        ),
    ],
)
def test_refused(tmp_path: Path, text: str | bytes, changes: dict, message: str) -> None:
    with pytest.raises(DataRefused, match=message):
        prepared(tmp_path, text, **changes)
    assert not (tmp_path / "data" / "trees" / "current").exists()


def test_a_query_cannot_read_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text(csv_text(table()))
    for query in (f"SELECT * FROM read_csv('{secret}')", f"SELECT * FROM '{secret}'"):
        with pytest.raises(DataRefused, match=r"data\.query: "):
            prepared(tmp_path, csv_text(table()), query=query)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": []}, r"data\.features=\[\]: name at least one"),
        ({"features": [{"name": "a", "kind": "nunber"}]}, r"data\.features\[0\]\.kind is 'nunber'"),
        (
            {"features": [{"name": "a", "kind": "number", "low": float("nan")}]},
            r"data\.features\[0\]\.low is nan",
        ),
        (
            {"features": [{"name": "a", "kind": "number", "low": 2, "high": 1}]},
            r"data\.features\[0\]\.low=2\.0: must be below",
        ),
        (
            {"features": [{"name": "a", "kind": "number", "dtype": "INT32", "nullable": True}]},
            r"data\.features\[0\]\.nullable=true: INT32 has no missing value",
        ),
        (
            {"target": {"name": "price", "kind": "binary", "above": float("nan")}},
            r"data\.target\.above is nan, not a finite number",
        ),
        (
            {"target": {"name": "price", "kind": "regression", "above": 3}},
            r"data\.target.*above and positive are of a binary target",
        ),
        ({"target": {"name": "size", "kind": "regression"}}, r"data\.target.*size is a feature"),
        ({"types": {"trees": {"size": "float23"}}}, r"float23 is no type. Nearest: float32"),
        ({"unique": {"tree": ["id"]}}, r"data\.unique\.tree is no table .* Nearest: trees"),
        (
            {"split": {"fractions": {"train": 0.5, "validation": 0.5}}},
            r"data\.split\.fractions=.* must name train, validation, holdout",
        ),
        (
            {"split": {"fractions": {"train": 0.5, "validation": 0.5, "holdout": 0.5}}},
            r"data\.split\.fractions=.* add up to 1",
        ),
        (
            {"features": [{"name": "size (m)", "kind": "number"}]},
            r"data\.features\[0\]\.name=size \(m\): .* map the column to another name",
        ),
        (
            {"target": {"name": "price", "kind": "regression", "output": "size"}},
            r"data\.target\.output=size: it is a feature",
        ),
        ({"name": "../trees"}, r"data\.name='\.\./trees' is not a name: a name has 1 to 64"),
        ({"min_category_cuont": 3}, r"data\.min_category_cuont is unknown"),
        ({"source": {"files": {}}}, r"data\.source\.files=\{\}: name at least one"),
        ({"_target_": "torch.optim.SGD"}, "data"),
        ({"_target_": "hpc.data.tabular.TabularDatset"}, "Nearest: .*TabularDataset"),
    ],
)
def test_a_wrong_setting_is_refused_before_any_work(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_dataset(node(Path("trees.csv"), **changes))
