"""Calls of the losses: what has many arguments names them."""

import ast
from pathlib import Path

LOSSES = Path(__file__).parents[3] / "kernels/ops/loss"
MOST = 14


def test_no_call_has_fifteen_positional_arguments():
    files = sorted(LOSSES.glob("*.py"))
    calls = [
        (path.name, node.lineno, len(node.args))
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]
    assert len(files) > 10 and max(count for *_, count in calls) > 5
    assert [call for call in calls if call[2] > MOST] == []
