"""A rollout on a terminal while it runs: a tree of hosts, each with the steps that it went through.

`LiveView.progress` is the callback of a rollout; it is called by many threads.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from conf.names import printable
from conf.page import duration

GOOD = ("healthy", "checked", "keep")
UNDOING = ("undo", "undone")
_STEPS = 7
"""Steps of a host that are shown, the newest ones."""
_BESIDE = 4
"""Lines of a terminal that are not for hosts."""


@dataclass
class _Branch:
    """One host: the names of its steps, the newest with its detail and time."""

    steps: list[str] = field(default_factory=list)
    detail: str = ""
    at: float = 0.0


class LiveView:
    """The tree of one rollout. A context: it is drawn while the block runs, and stays after it."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.title = title
        self.console = console or Console()
        self._began = time.monotonic()
        self._branches: dict[str, _Branch] = {}
        self._lock = threading.Lock()
        self._live = Live(
            get_renderable=self.tree, console=self.console, refresh_per_second=4,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def progress(self, host: str, step: str, detail: str) -> None:
        """Show a step of a host, or of what is no host: an edge, the fleet."""
        with self._lock:
            branch = self._branches.setdefault(host, _Branch())
            if not branch.steps or branch.steps[-1] != step:
                branch.steps.append(step)
            branch.detail, branch.at = detail, time.monotonic()

    def tree(self) -> Tree:
        """The tree as it is now: as many hosts as there is room for, those newest at work."""
        now = time.monotonic()
        with self._lock:
            branches = dict(self._branches)
            room = max(self.console.height - _BESIDE, 5)
            newest = sorted(branches, key=lambda name: branches[name].at)[-room:]
            tree = Tree(Text(f"{printable(self.title)}  {duration(now - self._began)}", "bold"))
            for name, branch in branches.items():
                if name in newest:
                    tree.add(_line(name, branch, now))
        if len(branches) > len(newest):
            tree.add(Text(f"and {len(branches) - len(newest)} more", "dim"))
        return tree


def _line(name: str, branch: _Branch, now: float) -> Text:
    """`use1-a     staged drain load 4 and 5 (2.1 s)`: the steps before dim, the newest coloured."""
    *before, last = branch.steps
    line = Text(f"{printable(name):<12} ", no_wrap=True, overflow="ellipsis")
    line.append("".join(f"{printable(step)} " for step in before[1 - _STEPS :]), "dim")
    line.append(printable(last), _colour(last))
    if branch.detail:
        line.append(f" {printable(branch.detail)}")
    if last not in (*GOOD, "staged", "undone"):
        line.append(f" ({duration(now - branch.at)})", "dim")
    return line


def _colour(step: str) -> str:
    if step in UNDOING:
        return "magenta"
    return "green" if step in GOOD else "cyan"
