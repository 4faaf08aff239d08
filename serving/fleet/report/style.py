"""The style of a page: light and dark, and light on paper. One text, no file beside it."""

STYLE = """
:root { --open: #f0d64a; --stage: #aab4bf; --away: #e69f00; --load: #56b4e9; --check: #8fb3ea;
  --watch: #6fc7a4; --step: #c3ccd5; --old: #aab4bf; --canary: #f0d64a; --new: #2f9e78;
  --undo: #cc6aa4; --line: #3f74d1; }
@media (prefers-color-scheme: dark) { :root { --stage: #76828f; --step: #5a6672;
  --old: #76828f; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --page: #fff; --box: #fff;
  --rule: #bbb; --stage: #aab4bf; --old: #aab4bf; --step: #c3ccd5; --good: #1e7d5a; }
  body { max-width: none; padding: 0; } table { break-inside: avoid; } }
h1.undo::before { background: var(--undo); }
.box.hurt { border-left: 5px solid var(--hurt); } .box.undo { border-left: 5px solid var(--undo); }
table { width: 100%; } td:first-child { white-space: nowrap; }
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
details { margin-top: 30px; }
"""
