"""Build a text dataset: text cut into splits, a tokenizer of train, memory-mapped tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from hpc.data.dataset import BuildResult, Progress
from hpc.data.refusal import DataRefused
from hpc.data.source import unpacked_bytes
from hpc.data.text.dataset import TextDataset
from hpc.data.tokenizer import train_byte_bpe
from serving.artifact.digest import canonical_json, file_sha256

END = "<|end|>"
"""The only special token, id 0; it pads and never occurs in the splits."""
PIECE_CHARS = 1 << 16
SCHEMA = {"tokens": "uint16 little-endian", "holdout.txt": "utf-8"}


@dataclass(frozen=True)
class SplitText:
    """The text of each split. `stray_bytes` were not UTF-8 and were read as Windows-1252."""

    train: str
    validation: str
    holdout: str
    stray_bytes: int


def build_text(config: TextDataset, staging: Path, progress: Progress) -> BuildResult:
    """Write the dataset's files into the folder `staging`. Raises `DataRefused` on bad input."""
    paths = config.source.paths().values()
    raw = b"".join(unpacked_bytes(path) for path in paths)
    splits = split_text(raw, config)
    progress(f"text: {len(raw):,} bytes; training the tokenizer ({config.vocab_size:,} tokens)")
    tokenizer = train_byte_bpe(pieces_of(splits.train), config.vocab_size, END, config.pretokenizer)
    tokenizer.save(str(staging / "tokenizer.json"))
    transform = {
        "kind": "text",
        "tokenizer_sha256": file_sha256(staging / "tokenizer.json"),
        "vocab_size": tokenizer.get_vocab_size(),
        "end_id": tokenizer.token_to_id(END),
    }
    (staging / "transform.json").write_bytes(canonical_json(transform))
    described = {}
    for name in ("train", "validation", "holdout"):
        text = getattr(splits, name)
        tokens = write_tokens(tokenizer, text, staging / f"{name}.bin")
        size = len(text.encode())
        progress(f"{name}: {size:,} bytes, {tokens:,} tokens, {size / tokens:.2f} bytes per token")
        described[name] = {"file": f"{name}.bin", "tokens": tokens, "bytes": size}
    (staging / "holdout.txt").write_bytes(splits.holdout.encode())
    described["holdout_text"] = {"file": "holdout.txt", "bytes": len(splits.holdout.encode())}
    notes = {"stray_bytes_read_as_windows_1252": splits.stray_bytes}
    return BuildResult(SCHEMA, described, notes)


def split_text(raw: bytes, config: TextDataset) -> SplitText:
    """Cut `raw` from its end: holdout, before it validation, the rest is train.

    A cut inside a character moves to the character's end. Raises `DataRefused` for too little text,
    or a holdout that is not UTF-8: its bytes are the unit of the model's score.
    """
    held = config.holdout_bytes + config.validation_bytes
    if len(raw) < 2 * held:
        names = ", ".join(path.name for path in config.source.paths().values())
        raise DataRefused(
            f"{names} holds {len(raw):,} bytes of text, too few to hold "
            f"out {held:,} and train on the rest. Lower data.holdout_bytes and "
            "data.validation_bytes."
        )
    first_cut = _character_start(raw, len(raw) - held)
    second_cut = _character_start(raw, len(raw) - config.holdout_bytes)
    holdout = raw[second_cut:]
    try:
        held_text = holdout.decode()
    except UnicodeDecodeError as error:
        raise DataRefused(
            f"the holdout is not clean UTF-8 at byte {error.start:,} of its "
            f"{len(holdout):,}, so bytes could not be counted exactly. "
            "Choose another data.holdout_bytes."
        ) from error
    train, stray_train = _lenient(raw[:first_cut])
    validation, stray = _lenient(raw[first_cut:second_cut])
    return SplitText(train, validation, held_text, stray_train + stray)


def write_tokens(tokenizer: Tokenizer, text: str, path: Path) -> int:
    """Write the tokens of `text` as little-endian uint16; returns how many."""
    total = 0
    with path.open("wb") as file:
        batch: list[str] = []
        for piece in pieces_of(text):
            batch.append(piece)
            if len(batch) == 32:
                total += _write_batch(tokenizer, batch, file)
                batch.clear()
        total += _write_batch(tokenizer, batch, file)
    return total


def pieces_of(text: str) -> Iterator[str]:
    """Cut `text` after blank lines that a letter follows, every 64 Ki characters or so.

    The pre-tokenizer cuts there as well, so the tokens are those of the whole text.
    """
    start = 0
    while start < len(text):
        cut = text.find("\n\n", start + PIECE_CHARS)
        while cut != -1 and not text[cut + 2 : cut + 3].isalpha():
            cut = text.find("\n\n", cut + 1)
        stop = len(text) if cut == -1 else cut + 2
        yield text[start:stop]
        start = stop


def _write_batch(tokenizer: Tokenizer, batch: list[str], file) -> int:
    encodings = tokenizer.encode_batch_fast(batch)
    for encoding in encodings:
        file.write(np.asarray(encoding.ids, dtype="<u2").tobytes())
    return sum(len(encoding.ids) for encoding in encodings)


def _lenient(raw: bytes) -> tuple[str, int]:
    """Decode UTF-8; the few bytes that are not are Windows-1252, mostly its quotes."""
    parts, stray = [], 0
    while True:
        try:
            parts.append(raw.decode())
            return "".join(parts), stray
        except UnicodeDecodeError as error:
            parts.append(raw[: error.start].decode())
            parts.append(raw[error.start : error.end].decode("cp1252", "replace"))
            raw = raw[error.end :]
            stray += error.end - error.start


def _character_start(raw: bytes, place: int) -> int:
    """`place`, or up to three bytes later, where no UTF-8 character goes across."""
    for later in range(place, min(place + 4, len(raw))):
        if raw[later] & 0xC0 != 0x80:
            return later
    return place
