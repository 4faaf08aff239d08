"""Names: the one rule for those that people choose, and the nearest valid ones of a mistyped one.

A name becomes a folder, a label, an argument of a command and a part of a URL; one that keeps to
the rule needs quotes in none of them, and leads out of no folder.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

from conf.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
ALLOWED = re.compile(r"[A-Za-z0-9_.-]+")
LETTERS = 64
"""Length of a name, unless its place allows more."""
RUN_LETTERS = 96
"""Length of a run's name: its task's, the time and a part of a digest."""
RESERVED = ("all", "snapshots", "stats")
"""Every model in a host's answer, the snapshots beside runs, Triton's /v2/models/stats."""
SHOWN = 60


def check_name(kind: str, text: str, command: str = "", letters: int = LETTERS) -> str:
    """`text`, where it is a name; `kind` is its place for people, such as `task.name`.

    `command` is what to type, its last `{}` where the name stands. Raises `ConfigError` with the
    allowed letters and the command with a name that is valid.
    """
    fault = _fault(text, letters)
    if fault is None:
        return text
    valid = nearest_name(text, letters)
    before, _, after = (command or "{}").rpartition("{}")
    advice = f" Type: {before}{valid}{after}" if valid else ""
    raise ConfigError(
        f"{kind}={shown(text)} {fault}: a name has 1 to {letters} of the letters A-Z a-z 0-9 _ . - "
        f"(the first is neither . nor -), without '..'.{advice}"
    )


def nearest_name(text: str, letters: int = LETTERS) -> str:
    """The valid name nearest to `text`; empty where nothing of it can stand in a name."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    words = re.findall(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*", plain)
    name = "_".join(word.strip("-") for word in words).strip("_-.")
    name = name[: letters - 2].rstrip("_-.")
    if not NAME.fullmatch(name):
        return ""
    return f"{name}_1" if name.lower() in RESERVED else name


def shown(text: str) -> str:
    """`text` in one line of ASCII, cut where it is long; in quotes where it has other letters."""
    quoted = text if ALLOWED.fullmatch(text) else ascii(text)
    if len(quoted) <= SHOWN:
        return quoted
    return f"{quoted[: SHOWN - 4]}...{'' if quoted is text else quoted[0]}"


def printable(text: str) -> str:
    """`text` with an escape in place of each letter that a terminal would obey or hide.

    Tabs and line ends stay.
    """
    return "".join(
        letter if letter.isprintable() or letter in "\t\n" else ascii(letter)[1:-1]
        for letter in text
    )


def nearest(word: str, valid: Iterable[str]) -> str:
    """`Nearest: a, b` for names close to `word` or with its last part; `Valid: ...` for none."""
    names = sorted(set(valid))
    leaf = word.rsplit(".", 1)[-1]
    same_leaf = [name for name in names if name.rsplit(".", 1)[-1] == leaf]
    near = dict.fromkeys([*get_close_matches(word, names, n=4, cutoff=0.5), *same_leaf])
    if near:
        return f"Nearest: {', '.join(list(near)[:4])}"
    return f"Valid: {', '.join(names[:20]) or 'none'}"


def _fault(text: str, letters: int) -> str | None:
    """The reason why `text` is no name, as a predicate; None for a name."""
    if text.lower() in RESERVED:
        return "is a word of Lockgate's own"
    if len(text) > letters:
        return f"has {len(text)} letters"
    if not NAME.fullmatch(text) or ".." in text:
        return "is not a name" if text else "is empty"
    return None
