"""The report as one HTML page: whole in itself, light and dark, read without a script. Pure."""

import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

OURS = "lockgate"
STYLE = """
:root { color-scheme: light dark; --ink: #1c2530; --soft: #5b6673; --page: #ffffff; --box: #f4f6f8;
  --rule: #d9dfe5; --good: #1e7d5a; --hurt: #b3470a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --soft: #9ba7b4; --page: #14191f;
  --box: #1d242c; --rule: #323c47; --good: #63d0a5; --hurt: #ff9950; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: var(--ink);
  background: var(--page); max-width: 1120px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 17px; margin: 32px 0 8px; }
p { margin: 4px 0; overflow-wrap: anywhere; } .soft { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: normal; text-align: left; white-space: nowrap; }
th, td { padding: 3px 12px 3px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th.number, td.number { text-align: right; } td.first { white-space: nowrap; }
th.group { text-align: center; color: var(--ink); font-weight: 600; }
.theirs { background: var(--box); padding-left: 10px; }
td.good { color: var(--good); } td.hurt { color: var(--hurt); font-weight: 600; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
COLUMNS = ("registers", "spills", "bytes_ratio", "binaries")
HEADS = ("registers", "spills", "bytes", "binaries")


@dataclass(frozen=True)
class ReportRun:
    """The circumstances of a report: versions, machine, and the time that it took."""

    written: str
    """ISO time in UTC."""
    seconds: float
    processors: int
    versions: dict[str, str]
    """By library: of those that compiled, and of the peers beside."""
    notes: Sequence[str] = ()
    """Peers that are not beside us, each a sentence with the reason."""


def report_page(rows: Sequence[Row], run: ReportRun) -> str:
    """The page of a report's rows."""
    libraries = list(dict.fromkeys(row["library"] for row in rows))
    arches = list(dict.fromkeys(row["arch"] for row in rows))
    title = _title([row for row in rows if row["library"] == OURS])
    made = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    parts = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="soft">{_text(made)}; bf16, compiled for GPUs that are not here, so without '
        f"times. Made {_text(run.written)} in {run.seconds / 60:.0f} min on {run.processors} "
        "processors.</p>",
        *(f"<p>{_text(note)}</p>" for note in run.notes),
        "<h2>Whole</h2>",
        _summary(rows, arches, libraries),
        *(part for arch in arches for part in _architecture(rows, arch, libraries)),
        f'<h2>Columns</h2><p class="soft">{_text(LEGEND)}</p>',
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


LEGEND = (
    "registers: of a thread, the most of the launcher's kernels. spills: instructions that reach "
    "local memory (of AMD, vector registers that were spilled). bytes: those that were moved over "
    "the least that must move, counted in the interpreter, without what all rows share. "
    "binaries: of one operator and size over numbers of rows, batches, ignored targets and label "
    "smoothings; of AMD, Triton makes a second one for tensors of 2 GiB and more. A dash: the "
    "library has nothing there, or it was not counted."
)


def _title(ours: Sequence[Row]) -> str:
    spilled = sum(bool(row.get("spills")) for row in ours)
    failed = sum("error" in row for row in ours)
    binaries = max((row.get("binaries", 0) for row in ours), default=0)
    needing = {row["arch"] for row in ours if row.get("binaries") == binaries > 1}
    where = f" ({', '.join(sorted(needing))})" if needing else ""
    ratio = max((row.get("bytes_ratio", 0) for row in ours), default=0)
    broken = f", {failed} failed" if failed else ""
    return (
        f"{len(ours)} rows of Lockgate's kernels: {spilled} spill, at most {binaries} "
        f"{'binary' if binaries == 1 else 'binaries'} of a row{where}, at most {ratio:.2f} "
        f"of the least bytes{broken}"
    )


def _summary(rows: Sequence[Row], arches: Sequence[str], libraries: Sequence[str]) -> str:
    heads = ("architecture", "library", "rows", "rows that spill", "spill instructions",
             "most bytes", "most binaries", "failed")  # fmt: skip
    body = ""
    for arch in arches:
        for library in libraries:
            some = [one for one in rows if (one["arch"], one["library"]) == (arch, library)]
            if not some:
                continue
            spills = [one.get("spills", 0) for one in some]
            body += _table_row(
                [arch, library],
                [len(some), sum(map(bool, spills)), sum(spills),
                 _most(some, "bytes_ratio"), _most(some, "binaries"),
                 sum("error" in one for one in some)],
            )  # fmt: skip
    return _table(_heads(heads, texts=2), body)


def _architecture(rows: Sequence[Row], arch: str, libraries: Sequence[str]) -> Iterator[str]:
    some = {(one["op"], one["size"], one["library"]): one for one in rows if one["arch"] == arch}
    names = dict.fromkeys((op, size) for op, size, _ in some)
    beside = [one for one in libraries if any(library == one for _, _, library in some)]
    groups = "<tr><th></th><th></th>" + "".join(
        f'<th class="group" colspan="{len(HEADS)}">{_text(one)}</th>' for one in beside
    )
    heads = groups + '</tr><tr><th>operator</th><th class="number">size</th>'
    heads += "".join(f'<th class="number">{head}</th>' for head in HEADS) * len(beside)
    body = "".join(
        f'<tr><td class="first">{_text(op)}</td><td class="number">{size:,}</td>'
        + "".join(_cells(some.get((op, size, one)), one) for one in beside)
        + "</tr>"
        for op, size in names
    )
    yield f"<h2>{_text(arch)}</h2>"
    yield _table(heads + "</tr>", body)
    yield _failures(some.values())


def _cells(row: Row | None, library: str) -> str:
    theirs = " theirs" * (library != OURS)
    cells = ""
    for name in COLUMNS:
        value = row.get(name) if row else None
        tone = ""
        if name == "spills" and value is not None:
            tone = " hurt" if value else " good"
        cells += f'<td class="number{theirs}{tone}">{_number(value)}</td>'
    return cells


def _failures(rows: Iterable[Row]) -> str:
    """The launchers that failed, by what they failed with."""
    found: dict[str, list[str]] = {}
    for one in rows:
        if text := one.get("error") or one.get("bytes_error"):
            found.setdefault(f"{one['library']}: {text}", []).append(f"{one['op']} {one['size']:,}")
    items = "".join(
        f"<li>{_text(', '.join(names))}: {_text(text)}</li>" for text, names in found.items()
    )
    return f'<ul class="soft">{items}</ul>' if items else ""


def _most(rows: Sequence[Row], name: str) -> float | None:
    return max((one[name] for one in rows if name in one), default=None)


def _table_row(texts: Sequence[str], numbers: Sequence[float | None]) -> str:
    cells = "".join(f'<td class="first">{_text(one)}</td>' for one in texts)
    cells += "".join(f'<td class="number">{_number(one)}</td>' for one in numbers)
    return f"<tr>{cells}</tr>"


def _heads(names: Sequence[str], texts: int) -> str:
    cells = (f'<th{"" if place < texts else NUMBER}>{name}</th>'
             for place, name in enumerate(names))  # fmt: skip
    return f"<tr>{''.join(cells)}</tr>"


NUMBER = ' class="number"'


def _table(heads: str, body: str) -> str:
    return f'<div class="wide"><table><thead>{heads}</thead><tbody>{body}</tbody></table></div>'


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}"


def _text(text: object) -> str:
    return html.escape(str(text), quote=True)
