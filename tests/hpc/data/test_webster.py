"""The dictionary: exact bytes, honest splits, a tokenizer that loses nothing."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from hpc.data.prepare import prepare
from hpc.data.publish import Published
from hpc.data.text import build as text_build
from serving.artifact.digest import file_sha256, tree_digest
from tests.datasets import GCIDE, quiet, webster_config, write_webster_source


def decoded(dataset: Published, split: str) -> str:
    tokenizer = Tokenizer.from_file(str(dataset.path / "tokenizer.json"))
    return tokenizer.decode(np.fromfile(dataset.path / f"{split}.bin", dtype="<u2").tolist())


def test_splits_are_the_source_cut_from_its_end(webster: Published, webster_source: Path) -> None:
    raw = gzip.decompress(webster_source.read_bytes())
    assert decoded(webster, "holdout").encode() == raw[-20_000:]
    assert (webster.path / "holdout.txt").read_bytes() == raw[-20_000:]
    assert decoded(webster, "validation").encode() == raw[-40_000:-20_000]
    assert decoded(webster, "train").encode() == raw[:-40_000]


def test_lineage_says_sizes_and_digests(webster: Published) -> None:
    for split in ("train", "validation", "holdout"):
        described = webster.lineage.splits[split]
        path = webster.path / f"{split}.bin"
        assert described["sha256"] == file_sha256(path)
        assert described["tokens"] * 2 == path.stat().st_size
        assert described["bytes"] == len(decoded(webster, split).encode())
    assert webster.lineage.digest == tree_digest(webster.path, exclude=("lineage.json",))


def test_tokenizer_has_seen_the_training_split_only(
    webster: Published, webster_source: Path, tmp_path: Path
) -> None:
    raw = gzip.decompress(webster_source.read_bytes())
    changed = tmp_path / "changed.dz"
    changed.write_bytes(gzip.compress(raw[:-40_000] + b"zyzzyva " * 5_000))
    again = prepare(webster_config(changed), tmp_path / "data", quiet)
    assert again.lineage.digest != webster.lineage.digest
    assert again.lineage.transform_digest == webster.lineage.transform_digest


def test_pieces_have_the_tokens_of_the_whole(
    webster: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer.from_file(str(webster.path / "tokenizer.json"))
    text = decoded(webster, "train")
    monkeypatch.setattr(text_build, "PIECE_CHARS", 500)
    pieces = list(text_build.pieces_of(text))
    assert len(pieces) > 50 and "".join(pieces) == text
    of_pieces = [one for piece in pieces for one in tokenizer.encode(piece).ids]
    assert of_pieces == tokenizer.encode(text).ids


def test_any_text_survives_the_tokenizer(webster: Published) -> None:
    tokenizer = Tokenizer.from_file(str(webster.path / "tokenizer.json"))
    for text in ("naïve Ωmega — 漢字 🙂", " \n\t  x", "\x00\x7f", "[1913 Webster]\n\n", " " * 999):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_stray_bytes_are_read_and_counted(webster_source: Path, tmp_path: Path) -> None:
    raw = gzip.decompress(webster_source.read_bytes())
    stray = tmp_path / "stray.dz"
    stray.write_bytes(gzip.compress(b"market\x92s drop, fa\xe7ade\n" + raw))
    made = prepare(webster_config(stray), tmp_path / "data", quiet)
    assert made.lineage.notes == {"stray_bytes_read_as_windows_1252": 2}
    assert decoded(made, "train").startswith("market’s drop, façade\n")


def test_the_same_source_gives_the_same_digest(
    webster: Published, webster_source: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.dz"
    elsewhere.write_bytes(webster_source.read_bytes())
    again = prepare(webster_config(elsewhere), tmp_path / "data", quiet)
    assert again.lineage.digest == webster.lineage.digest


def test_vocabulary_must_fit_into_two_bytes() -> None:
    with pytest.raises(ValueError, match=r"data.vocab_size=70000: use 257 .* to 65536"):
        webster_config(GCIDE, vocab_size=70_000)


@pytest.mark.slow
def test_real_holdout_compresses_as_the_field_notes_say(tmp_path: Path) -> None:
    """gzip -9: 2.62 bits per byte; xz -9e: 2.18. The gates compare with these programs."""
    import lzma

    raw = gzip.decompress(write_webster_source(tmp_path / "all.dz", size=-1).read_bytes())
    holdout = text_build.split_text(raw, webster_config(GCIDE, holdout_bytes=1_000_000)).holdout
    data = holdout.encode()
    assert len(data) == 1_000_000
    assert round(len(gzip.compress(data, 9)) * 8 / len(data), 2) == 2.62
    packed = lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
    assert round(len(packed) * 8 / len(data), 2) == 2.18
