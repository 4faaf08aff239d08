"""The style of a report, and the script that sorts its table. One text each, no file beside it."""

from __future__ import annotations

STYLE = """
:root { --open: #d9a400;
  --queued: #c3ccd5; --starting: #8fb3ea; --training: #3f9e7c; --evaluation: #f0d64a;
  --stalled: #8a5a2b; --requeued: #d55e00; --export: #cc6aa4; --mark: #d55e00;
  --c0: #3f74d1; --c1: #d55e00; --c2: #2f9e78; --c3: #b0569a; --c4: #a37b00; --c5: #1f9ac4;
  --c6: #7a5cc9; --c7: #6b7683;
  --k0: #0b5d45; --k1: #2f9e78; --k2: #7fbfd6; --k3: #b9c4d0; --k4: #d8dde3; }
@media (prefers-color-scheme: dark) { :root { --queued: #5a6672; --mark: #ff9950;
  --c0: #7da7f2; --c1: #ff9950; --c2: #63d0a5; --c3: #e08fca; --c4: #e0bd4a; --c5: #6fcbee;
  --c6: #b09cf0; --c7: #9ba7b4;
  --k0: #8ff0ca; --k1: #4fb98f; --k2: #4a86a0; --k3: #4b5763; --k4: #38424d; } }
.box { border-left: 5px solid var(--open); }
.box.hurt { border-left-color: var(--hurt); } .box ul { margin: 4px 0; padding-left: 20px; }
.wide { overflow-x: auto; }
table { font-variant-numeric: tabular-nums; }
th, td { padding: 3px 14px 3px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.number, th.number { text-align: right; } tr.best td { font-weight: 600; }
td:first-child { white-space: nowrap; }
th.sort { cursor: pointer; } th.sort:hover { color: var(--ink); }
th[aria-sort]::after { content: " ▲"; font-size: 10px; }
th[aria-sort="descending"]::after { content: " ▼"; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr));
  gap: 18px 28px; } figure { margin: 0; min-width: 0; }
figcaption { color: var(--soft); font-size: 13px;
  overflow-wrap: anywhere; } figcaption b { color: var(--ink); font-weight: 600; }
svg { display: block; font: 12px system-ui, "DejaVu Sans", sans-serif; overflow: visible; }
.charts svg { width: 100%; height: auto; } svg.parallel text { paint-order: stroke;
  stroke: var(--page); stroke-width: 4px; stroke-linejoin: round; }
svg text { fill: var(--soft); font-variant-numeric: tabular-nums; } svg .value { text-anchor: end; }
svg .tick { text-anchor: middle; } svg .grid { stroke: var(--rule); } svg .axis
  { stroke: var(--soft); } svg .requeue { stroke: var(--mark); stroke-dasharray: 4 3;
  stroke-width: 1.5; }
.curve { --c: var(--c0); } .curve polyline { fill: none; stroke: var(--c); stroke-width: 1.7;
  stroke-linejoin: round; stroke-linecap: round; } .curve circle { fill: var(--c); }
.curve.best polyline { stroke-width: 3.2; } .curve:hover polyline { stroke-width: 3.5; }
.run0 { --c: var(--c0); } .run1 { --c: var(--c1); } .run2 { --c: var(--c2); }
.run3 { --c: var(--c3); } .run4 { --c: var(--c4); } .run5 { --c: var(--c5); }
.run6 { --c: var(--c6); } .run7 { --c: var(--c7); } .rank0 { --c: var(--k0); }
.rank1 { --c: var(--k1); } .rank2 { --c: var(--k2); } .rank3 { --c: var(--k3); }
.rank4 { --c: var(--k4); }
i { background: var(--c); }
.legend + table { margin-top: 10px; }
.lanes svg { width: 100%; } .lane-name { color: var(--soft); font-size: 13px; margin-top: 6px; }
.queued { fill: var(--queued); --c: var(--queued); }
.starting { fill: var(--starting); --c: var(--starting); }
.training { fill: var(--training); --c: var(--training); }
.evaluation { fill: var(--evaluation); --c: var(--evaluation); }
.stalled { fill: var(--stalled); --c: var(--stalled); }
.requeued { fill: var(--requeued); --c: var(--requeued); }
.export { fill: var(--export); --c: var(--export); }
.part0 { fill: var(--c0); --c: var(--c0); } .part1 { fill: var(--c1); --c: var(--c1); }
.part2 { fill: var(--c2); --c: var(--c2); } .part3 { fill: var(--c3); --c: var(--c3); }
.part4 { fill: var(--c4); --c: var(--c4); } .part5 { fill: var(--c5); --c: var(--c5); }
.part6 { fill: var(--c6); --c: var(--c6); } .part7 { fill: var(--queued); --c: var(--queued); }
pre { background: var(--box); border: 1px solid var(--rule); border-radius: 6px; margin: 8px 0;
  padding: 10px 14px; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin-top: 14px; }
@media (max-width: 700px) { body { padding: 20px 14px 40px; }
  .charts svg { font-size: 15px; } }
"""

SORT_SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const key = row => {
      const cell = row.cells[column];
      return "n" in cell.dataset ? Number(cell.dataset.n) : cell.textContent;
    };
    const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0)
      : typeof a === "number" ? -1 : 1;
    const sort = () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      body.append(...[...body.rows].sort((a, b) => sign * compare(key(a), key(b))));
    };
    head.tabIndex = 0;
    head.classList.add("sort");
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => event.key === "Enter" && sort());
  });
}
"""
