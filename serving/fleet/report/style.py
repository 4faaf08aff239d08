"""The style of a page: light and dark, and light on paper. One text, no file beside it."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2530; --soft: #5b6673; --page: #ffffff; --box: #f4f6f8;
  --rule: #d9dfe5; --stage: #aab4bf; --away: #e69f00; --load: #56b4e9; --check: #8fb3ea;
  --watch: #6fc7a4; --step: #c3ccd5; --old: #aab4bf; --canary: #f0d64a; --new: #2f9e78;
  --undo: #cc6aa4; --hurt: #d55e00; --good: #1e7d5a; --in: #10161d; --line: #3f74d1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --soft: #9ba7b4; --page: #14191f;
  --box: #1d242c; --rule: #323c47; --stage: #76828f; --step: #5a6672; --old: #76828f;
  --good: #63d0a5; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --page: #fff; --box: #fff;
  --rule: #bbb; --stage: #aab4bf; --old: #aab4bf; --step: #c3ccd5; --good: #1e7d5a; }
  body { max-width: none; padding: 0; } details { display: none; }
  section, table { break-inside: avoid; } * { print-color-adjust: exact; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: var(--ink);
  background: var(--page); max-width: 1080px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h1::before { content: ""; display: inline-block; width: 14px; height: 14px; border-radius: 50%;
  margin-right: 10px; background: var(--good); }
h1.undo::before { background: var(--undo); } h1.hurt::before { background: var(--hurt); }
h1.open::before { background: var(--canary); }
h2 { font-size: 16px; margin: 30px 0 8px; }
p { margin: 4px 0; overflow-wrap: anywhere; } .soft { color: var(--soft); }
.box { background: var(--box); border: 1px solid var(--rule); border-radius: 6px;
  padding: 10px 14px; margin: 10px 0; }
.box.hurt { border-left: 5px solid var(--hurt); } .box.undo { border-left: 5px solid var(--undo); }
dl { display: grid; grid-template-columns: max-content 1fr max-content 1fr; gap: 2px 16px;
  margin: 14px 0; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 700px) { dl { grid-template-columns: max-content 1fr; } }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; color: var(--soft); font-weight: normal; }
th, td:first-child { white-space: nowrap; }
th, td { padding: 3px 12px 3px 0; border-bottom: 1px solid var(--rule); vertical-align: top;
  overflow-wrap: anywhere; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
.pass { color: var(--good); } .fail { color: var(--hurt); font-weight: 600; }
svg { width: 100%; height: auto; display: block; font: 11px system-ui, "DejaVu Sans", sans-serif; }
svg text { fill: var(--ink); } svg .name { text-anchor: end; } svg .head { fill: var(--soft);
  font-size: 12px; } svg .tick { text-anchor: middle; fill: var(--soft); }
svg .missing { fill: var(--soft); font-style: italic; } svg .in { fill: var(--in); }
svg .grid { stroke: var(--rule); stroke-width: 1; } svg .axis { stroke: var(--soft); }
svg .line { fill: none; stroke: var(--line); stroke-width: 2; stroke-linejoin: round; }
svg .moment { stroke: var(--good); stroke-width: 1.5; stroke-dasharray: 4 3; }
svg .moment.undo { stroke: var(--undo); }
svg .mark.healthy { fill: var(--good); } svg .mark.undo { fill: var(--undo); }
svg .mark.hurt { fill: var(--hurt); }
.stage { fill: var(--stage); background: var(--stage); } .away { fill: var(--away);
  background: var(--away); } .load { fill: var(--load); background: var(--load); }
.check { fill: var(--check); background: var(--check); } .watch { fill: var(--watch);
  background: var(--watch); } .step { fill: var(--step); background: var(--step); }
.old { fill: var(--old); background: var(--old); } .canary { fill: var(--canary);
  background: var(--canary); } .new { fill: var(--new); background: var(--new); }
rect.undo, i.undo { fill: var(--undo); background: var(--undo); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; color: var(--soft); font-size: 13px; }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 2px;
  margin-right: 5px; vertical-align: -1px; }
details { margin-top: 30px; } summary { cursor: pointer; color: var(--soft); }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }
"""
