"""HTML pages that open from disk, of both planes: texts of others, times, the document around them.

A page is whole in itself: its policy forbids whatever it does not contain, a network above all.
"""

from __future__ import annotations

import base64
import hashlib
import html
from datetime import UTC, datetime

from conf.names import printable

LONGEST = 600
TITLE_LETTERS = 400
BASE_STYLE = """
:root { color-scheme: light dark; --ink: #1c2530; --soft: #5b6673; --page: #ffffff; --box: #f4f6f8;
  --rule: #d9dfe5; --good: #1e7d5a; --hurt: #d55e00; --in: #10161d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --soft: #9ba7b4; --page: #14191f;
  --box: #1d242c; --rule: #323c47; --good: #63d0a5; } }
@media print { details { display: none; } section { break-inside: avoid; }
  * { print-color-adjust: exact; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: var(--ink);
  background: var(--page); max-width: 1120px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 25px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h1::before { content: ""; display: inline-block; width: 14px; height: 14px; border-radius: 50%;
  margin-right: 10px; background: var(--open); }
h1.good::before { background: var(--good); } h1.hurt::before { background: var(--hurt); }
h2 { font-size: 16px; margin: 30px 0 8px; }
p { margin: 4px 0; overflow-wrap: anywhere; } .soft { color: var(--soft); }
.box { background: var(--box); border: 1px solid var(--rule); border-radius: 6px;
  padding: 10px 14px; margin: 10px 0; }
dl { display: grid; grid-template-columns: max-content 1fr max-content 1fr; gap: 2px 16px;
  margin: 14px 0; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 700px) { dl { grid-template-columns: max-content 1fr; } }
table { border-collapse: collapse; font-size: 14px; }
th { text-align: left; color: var(--soft); font-weight: normal; white-space: nowrap; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; color: var(--soft); font-size: 13px; }
i { display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin-right: 5px;
  vertical-align: -1px; }
summary { cursor: pointer; color: var(--soft); }
pre, code { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
"""
"""The style that all pages have; a page's own style stands after it and has the colour --open."""


def escaped(text: object, letters: int = LONGEST) -> str:
    """`text` as text of an HTML page or of an attribute in quotes: nothing in it is markup.

    What is longer than `letters` is cut, letters that a terminal or a page would obey are shown.
    """
    whole = str(text)
    short = whole if len(whole) <= letters else f"{whole[: letters - 1]}…"
    return html.escape(printable(short), quote=True)


def page_document(title: str, body: str, style: str, script: str = "") -> str:
    """The whole page of a `body` in HTML; `title` is text. Only this very `script` may run."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        body += f"<script>{script}</script>"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(title, TITLE_LETTERS)}</title><style>{BASE_STYLE}{style}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def utc(at: float) -> str:
    """A moment as `2026-01-31 23:59:59 UTC`."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """A time span in two units at most: `0.4 s`, `3 min 20 s`, `2 h 5 min`, `3 days 4 h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole, 60, "min", "s")
    if whole < 86400:
        return _two(whole // 60, 60, "h", "min")
    days, rest = divmod(whole // 3600, 24)
    name = "day" if days == 1 else "days"
    return f"{days} {name} {rest} h" if rest and days < 7 else f"{days} {name}"


def _two(count: int, size: int, large: str, small: str) -> str:
    whole, rest = divmod(count, size)
    return f"{whole} {large} {rest} {small}" if rest else f"{whole} {large}"
