"""Build a labelled-text dataset: whole groups in splits, labels and tokenizer of train."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from hpc.data.classes import class_names
from hpc.data.dataset import BuildResult, Progress
from hpc.data.labelled_text.dataset import TOKENIZER, LabelledTextDataset
from hpc.data.refusal import DataRefused
from hpc.data.split import split_table
from hpc.data.tables import read_raw_table, typed_column, value_text
from hpc.data.tokenizer import train_byte_bpe
from serving.artifact.digest import canonical_json

PAD = "<|pad|>"
"""The only special token of a trained tokenizer, id 0."""


def build_labelled_text(
    config: LabelledTextDataset, staging: Path, progress: Progress
) -> BuildResult:
    """Write splits, tokenizer and transform into `staging`. Raises `DataRefused` on bad input."""
    paths = config.source.paths()
    prepared, times = labelled_texts(config, paths["rows"])
    parts = split_table(prepared, config.group, times, config.split)
    labels = class_names(
        config.label, {name: set(part[config.label].to_pylist()) for name, part in parts.items()}
    )
    train = parts["train"][config.text].to_pylist()
    if TOKENIZER in config.source.files:
        tokenizer = read_tokenizer(paths[TOKENIZER])
    else:
        tokenizer = train_byte_bpe(train, config.vocab_size, PAD)
    pad_id = padding_id(tokenizer, config.pad_token or PAD, paths.get(TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(staging / "tokenizer.json"))
    cut = {}
    for split, part in parts.items():
        pq.write_table(part, staging / f"{split}.parquet", compression="zstd")
        encodings = tokenizer.encode_batch_fast(part[config.text].to_pylist())
        cut[split] = sum(len(one.ids) > config.max_tokens for one in encodings)
        progress(
            f"{split}: {part.num_rows:,} texts, {cut[split]:,} above {config.max_tokens} tokens"
        )
    transform = {
        "kind": "labelled-text",
        "labels": list(labels),
        "text": config.text,
        "label": config.label,
        "group": config.group or None,
        "max_tokens": config.max_tokens,
        "pad_id": pad_id,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    (staging / "transform.json").write_bytes(canonical_json(transform))
    return BuildResult(
        schema={field.name: str(field.type) for field in prepared.schema},
        splits={
            split: {"file": f"{split}.parquet", "rows": part.num_rows}
            for split, part in parts.items()
        },
        notes={"cut_texts": cut},
    )


def labelled_texts(
    config: LabelledTextDataset, path: Path
) -> tuple[pa.Table, pa.ChunkedArray | None]:
    """The columns text, label and group of the file `path`, and its time column if there is one."""
    raw = read_raw_table(path, config.csv)
    names = [config.text, config.label, *([config.group] if config.group else [])]
    columns = {name: _text_column(raw, path.name, name) for name in names}
    empty = pc.index(pc.equal(columns[config.text], ""), True).as_py()
    if empty >= 0:
        raise DataRefused(f"column {config.text!r} of {path.name} is empty in row {empty + 1}")
    times = None
    if config.split.time:
        dtype = pa.timestamp("us")
        if path.suffix == ".parquet" and config.split.time in raw.column_names:
            dtype = raw[config.split.time].type
        times = typed_column(raw, path.name, config.split.time, dtype, nullable=False)
    return pa.table(columns), times


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in the file `path`. Raises `DataRefused` for a file that holds none."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise DataRefused(f"{path.name} is not a tokenizer.json: {error}") from error


def padding_id(tokenizer: Tokenizer, token: str, path: Path | None) -> int:
    """The id of the padding token `token`, or of the one in the tokenizer's file."""
    found = tokenizer.token_to_id(token)
    if found is None and token == PAD and tokenizer.padding:
        found = tokenizer.padding["pad_id"]
    if found is None:
        name = path.name if path else "the tokenizer"
        raise DataRefused(
            f"{name} has no padding token {token!r}. Name one of its tokens with data.pad_token."
        )
    return int(found)


def _text_column(raw: pa.Table, place: str, name: str) -> pa.Array:
    dtype = raw[name].type if name in raw.column_names else pa.string()
    column = typed_column(raw, place, name, dtype, nullable=False)
    return pa.array([value_text(value) for value in column.to_pylist()], pa.string())
