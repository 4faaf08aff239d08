"""The report's page: what it has of each row, and in a real browser, light and dark."""

import html
import json
import re
import shutil
import subprocess

import pytest

from kernels.analysis.page import ReportRun, report_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DARK = "--blink-settings=preferredColorScheme=0"
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
RUN = ReportRun("2026-01-31T12:00:00+00:00", 383.0, 2, {"Triton": "3.9.0"}, ("A peer is missing.",))
HOSTILE = "<img src=x onerror=alert(1)>"


def row(library, op="rms_norm_fwd", arch="sm_90", size=4096, **facts):
    known = {"registers": 40, "spills": 0, "bytes_ratio": 1.0, "binaries": 1}
    facts = facts if "error" in facts else {**known, **facts}
    return {"library": library, "op": op, "arch": arch, "size": size, **facts}


ROWS = [
    row("lockgate"), row("liger-kernel", spills=38, binaries=11),
    row("quack-kernels", error=f"no {HOSTILE}"),
    row("lockgate", arch="gfx942", size=8192, bytes_ratio=1.6667, registers=77),
    row("liger-kernel", arch="gfx942", size=8192),
]  # fmt: skip


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.split("</style>")[1])))


def test_it_has_each_row_beside_its_peers_and_how_long_it_took():
    page = report_page(ROWS, RUN)
    text = text_of(page)
    for words in (
        "2 rows of Lockgate's kernels: 0 spill, at most 1 binary of a row, at most 1.67 of",
        "Triton 3.9.0; bf16", "in 6 min on 2 processors", "A peer is missing.",
        "rms_norm_fwd 4,096 40 0 1.00 1 40 38 1.00 11 – – – –", "rms_norm_fwd 8,192 77 0 1.67 1",
        "sm_90 liger-kernel 1 1 38 1.00 11 0", "sm_90 quack-kernels 1 0 0 – – 1",
        "rms_norm_fwd 4,096: quack-kernels: no <img src=x",
    ):  # fmt: skip
        assert words in text, (words, text)
    assert page.count('hurt">38') == 1 and "<img" not in page and "<script" not in page
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched


def test_our_own_spills_and_failures_are_in_its_title():
    page = report_page([row("lockgate", spills=3, binaries=2), row("lockgate", error="x")], RUN)
    text = text_of(page)
    assert "2 rows of Lockgate's kernels: 1 spill, at most 2 binaries of a row (sm_90)" in text
    assert ", 1 failed</title>" in page


PROBE = """<script>document.body.dataset.found = JSON.stringify({
  page: document.documentElement.scrollWidth, window: innerWidth,
  background: getComputedStyle(document.body).backgroundColor,
  rows: document.querySelectorAll("tbody tr").length});</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
@pytest.mark.parametrize(
    ("width", "options", "background"),
    [(1200, (), "rgb(255, 255, 255)"), (520, (DARK,), "rgb(20, 25, 31)")],
)
def test_it_opens_in_a_browser(tmp_path, width, options, background):
    path = tmp_path / "page.html"
    probed = POLICY.sub("", report_page(ROWS, RUN)).replace("</body>", f"{PROBE}</body>")
    path.write_text(probed, encoding="utf-8")
    done = subprocess.run(
        [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", *options,
         f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
         f"file://{path}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = json.loads(re.search(r'data-found="([^"]*)"', done.stdout)[1].replace("&quot;", '"'))
    assert found["page"] <= found["window"] == width
    assert (found["background"], found["rows"]) == (background, 5 + 2)
