"""Webster's dictionary as a language-modelling dataset: text, tokenizer, memory-mapped tokens."""

from __future__ import annotations

import gzip
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from hpc.data.config import WebsterConfig
from hpc.data.recipe import Made
from hpc.data.refusal import DataRefused
from hpc.data.source import SourceFile, pinned
from serving.artifact.digest import canonical_json, file_sha256

END = "<|end|>"
"""The only special token, id 0; it pads and never occurs in the splits."""
PIECE_CHARS = 1 << 16
SCHEMA = {"tokens": "uint16 little-endian", "holdout.txt": "utf-8"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Splits:
    """The text of each split. `stray_bytes` were not UTF-8 and were read as Windows-1252."""

    train: str
    validation: str
    holdout: str
    stray_bytes: int


def sources(config: WebsterConfig) -> dict[str, SourceFile]:
    """The raw file, checked against its pin."""
    path = Path(config.source.path)
    return {"dictionary": pinned(path, config.source.sha256, "data.source.sha256")}


def source_version(config: WebsterConfig) -> str:
    """The installed version of the Debian package, or `unknown`."""
    query = ["dpkg-query", "-W", "-f", "${Version}", config.source.name]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # not a Debian
        return "unknown"
    return done.stdout.strip() or "unknown"


def make(config: WebsterConfig, staged: Path, say: Say) -> Made:
    """Write the dataset's files into the folder `staged`. Raises `DataRefused` on bad input."""
    raw = unpack(Path(config.source.path))
    splits = split(raw, config)
    say(f"text: {len(raw):,} bytes; training the tokenizer ({config.vocab_size:,} tokens)")
    tokenizer = train_tokenizer(splits.train, config)
    tokenizer.save(str(staged / "tokenizer.json"))
    tokenizer_sha256 = file_sha256(staged / "tokenizer.json")
    transform = {
        "kind": "lm",
        "tokenizer_sha256": tokenizer_sha256,
        "vocab_size": tokenizer.get_vocab_size(),
        "end_id": tokenizer.token_to_id(END),
    }
    (staged / "transform.json").write_bytes(canonical_json(transform))
    described = {}
    for name in ("train", "validation", "holdout"):
        text = getattr(splits, name)
        tokens = write_tokens(tokenizer, text, staged / f"{name}.bin")
        size = len(text.encode())
        say(f"{name}: {size:,} bytes, {tokens:,} tokens, {size / tokens:.2f} bytes per token")
        described[name] = {"file": f"{name}.bin", "tokens": tokens, "bytes": size}
    (staged / "holdout.txt").write_bytes(splits.holdout.encode())
    described["holdout_text"] = {"file": "holdout.txt", "bytes": len(splits.holdout.encode())}
    return Made(SCHEMA, described, {"stray_bytes_read_as_windows_1252": splits.stray_bytes})


def unpack(path: Path) -> bytes:
    """The bytes inside a dictzip or gzip file."""
    try:
        with gzip.open(path) as stream:
            return stream.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataRefused(
            f"{path.name} cannot be unpacked ({error}): it is truncated or damaged. "
            "Install its package again."
        ) from error


def split(raw: bytes, config: WebsterConfig) -> Splits:
    """Cut `raw` from its end: holdout, before it validation, the rest is train.

    A dictionary is in alphabetical order, so the holdout has words that training never saw.
    """
    held = config.holdout_bytes + config.validation_bytes
    if len(raw) < 2 * held:
        raise DataRefused(
            f"{Path(config.source.path).name} holds {len(raw):,} bytes of text, too few to hold "
            f"out {held:,} and train on the rest. Lower data.holdout_bytes and "
            "data.validation_bytes."
        )
    holdout = raw[-config.holdout_bytes :]
    try:
        held_text = holdout.decode()
    except UnicodeDecodeError as error:
        raise DataRefused(
            f"the holdout is not clean UTF-8 at byte {error.start:,} of its "
            f"{config.holdout_bytes:,}, so bytes could not be counted exactly. "
            "Choose another data.holdout_bytes."
        ) from error
    train, stray_train = _lenient(raw[:-held])
    validation, stray = _lenient(raw[-held : -config.holdout_bytes])
    return Splits(train, validation, held_text, stray_train + stray)


def train_tokenizer(text: str, config: WebsterConfig) -> Tokenizer:
    """A byte-level BPE: any text has tokens, and tokens decode to exactly that text."""
    tokenizer = Tokenizer(models.BPE())
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not config.pretokenizer)
    if config.pretokenizer:
        pieces = pre_tokenizers.Split(Regex(config.pretokenizer), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, bytewise])
    else:
        tokenizer.pre_tokenizer = bytewise
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pieces_of(text), trainer)
    return tokenizer


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
    """Decode UTF-8; the few bytes that are not (the source has three) are Windows-1252 quotes."""
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
