"""`scripts/quickstart --task lm`, with fewer steps than its default: text in, text out."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

# Five minutes; tests/serving/release/test_release_text.py gates and serves a text model in less.
pytestmark = [pytest.mark.site, pytest.mark.full, pytest.mark.timeout(2400)]

REPO = Path(__file__).resolve().parents[2]
# The default is 800 steps; after these it is well past gzip already.
STEPS = 60


@pytest.fixture(scope="module")
def printed(box) -> str:
    done = subprocess.run(
        [REPO / "scripts/quickstart", "--task", "lm", f"steps={STEPS}"],
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def test_it_beats_gzip_on_the_held_out_megabyte(printed: str) -> None:
    assert re.search(r"gzip\S*\s+pass\b", printed), printed[-3000:]


def test_every_region_writes_text_after_a_prompt(printed: str, box) -> None:
    for region in box.site.edges:
        answer = rf"^{region} was asked .*text=.*\n  and answered .*completion=('.*'|\".*\")"
        wrote = re.search(answer, printed, re.MULTILINE)
        assert wrote, printed[-3000:]
        assert len(ast.literal_eval(wrote.group(1))) > 10
