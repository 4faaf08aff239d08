"""Every `sh` block of the README's tour and of the guides runs, in order, as it is written.

Those of docs/extending.md run in test_projects.py; tests/house/test_docs.py finds a command of a
guide that no test runs.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.site, pytest.mark.timeout(900)]

REPO = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Where a guide's commands are typed; None is a root shell in the checkout.
GUIDES = {"docs/researcher.md": "train", "docs/ops.md": None, "docs/sre.md": None}


def run(script: str, role: str | None) -> None:
    shell = ["bash", "-euxo", "pipefail", "-c", script]
    argv = [str(REPO / "scripts/site"), "as", role, *shell] if role else shell
    done = subprocess.run(
        argv, cwd=REPO, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("guide", GUIDES)
def test_the_commands_of_a_guide_run(guide: str, box) -> None:
    blocks = BLOCK.findall((REPO / guide).read_text())
    assert blocks, f"{guide} has no sh block"
    run("".join(blocks), GUIDES[guide])


def test_the_incident_commands_of_the_sre_guide_run(box) -> None:
    """The `bash` blocks but for those of fab, which the guide for ops has too."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (REPO / "docs/sre.md").read_text(), re.M | re.S)
    lines = [line for line in "".join(blocks).splitlines() if " fab " not in line]
    (silence,) = (line for line in lines if " silence add " in line)
    amtool = silence.partition(" add ")[0]
    try:
        run("\n".join(lines), None)
    finally:
        run(f"{amtool} expire $({amtool} query --quiet)", None)


def test_the_tour_of_the_readme_runs(box) -> None:
    two_commands, tour = BLOCK.findall((REPO / "README.md").read_text())
    for command in two_commands.split():
        assert (REPO / command).stat().st_mode & 0o111, f"{command} cannot be run"
    run(tour, None)
