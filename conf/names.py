"""Nearest valid names of a mistyped one, for every message that refuses a name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, valid: Iterable[str]) -> str:
    """`Nearest: a, b` for names close to `word` or with its last part; `Valid: ...` for none."""
    names = sorted(set(valid))
    leaf = word.rsplit(".", 1)[-1]
    same_leaf = [name for name in names if name.rsplit(".", 1)[-1] == leaf]
    near = dict.fromkeys([*get_close_matches(word, names, n=4, cutoff=0.5), *same_leaf])
    if near:
        return f"Nearest: {', '.join(list(near)[:4])}"
    return f"Valid: {', '.join(names[:20]) or 'none'}"
