"""The page in a real browser: two widths, light and dark, its own script and no other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from hpc.report.notes import ReportNotes
from hpc.report.page import report_page
from hpc.report.reported_run import reported_runs
from tests.hpc.report.written_runs import CONFIG, metric_lines, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DARK = "--blink-settings=preferredColorScheme=0"
PROBE = """<script>
const wide = document.querySelector("table.sortable");
const column = [...wide.tHead.rows[0].cells].findIndex(head => head.textContent === "loss");
const losses = () => [...wide.tBodies[0].rows].map(row => Number(row.cells[column].dataset.n));
const before = losses();
wide.tHead.rows[0].cells[column].click();
wide.tHead.rows[0].cells[column].click();
document.body.dataset.found = JSON.stringify({
  page: document.documentElement.scrollWidth, window: innerWidth, before, after: losses(),
  background: getComputedStyle(document.body).backgroundColor,
  clipped: [...document.querySelectorAll(".charts svg")].some(one => one.getBBox().height < 150),
});
</script>"""
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("runs")
    runs = reported_runs([
        write_run(folder, f"flights-20260101-00000{number}-aaaaaa",
                  {"optim": CONFIG["optim"] | {"lr": 10.0**-number}}, metric_lines(scale=number))
        for number in (2, 1, 3)
    ])  # fmt: skip
    return report_page(runs, ReportNotes(), 1_795_800_000.0)


def shown(tmp_path, text: str, width: int, *options: str) -> str:
    """The document as the browser has it after its scripts."""
    path = tmp_path / "page.html"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", *options,
         f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
         f"file://{path}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize(
    ("width", "options", "background"),
    [(1200, (), "rgb(255, 255, 255)"), (520, (DARK,), "rgb(20, 25, 31)")],
)
def test_it_fits_the_window_and_sorts(page, tmp_path, width, options, background):
    probed = POLICY.sub("", page).replace("</body>", f"{PROBE}</body>")
    text = shown(tmp_path, probed, width, *options)
    found = json.loads(re.search(r'data-found="([^"]*)"', text)[1].replace("&quot;", '"'))
    assert found["page"] <= found["window"] == width
    assert found["background"] == background
    assert found["before"] == sorted(found["before"])  # the best first, without a script
    assert found["after"] == sorted(found["before"], reverse=True)
    assert not found["clipped"]


def test_its_policy_lets_its_own_script_run_and_no_other(page, tmp_path):
    taken = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='x'\">"
    text = shown(tmp_path, page.replace("</body>", f"{taken}</body>"), 1200)
    assert "<title>3 runs: 3 finished" in text
    assert re.search(r'<th[^>]*class="[^"]*sort', text)
