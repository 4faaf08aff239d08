"""The task of `fab -l` for the edges' own configs: parse, call one function, print."""

from __future__ import annotations

from typing import Any

from invoke import Context, task

from serving.fleet.cli.task_output import print_result, progress_lines, run_composed

__all__ = ["edges"]


@task(
    iterable=["set"],
    help={
        "roll": "install what differs, edge by edge: checked, reloaded, proven, or taken back",
        "set": "one key of the config, as in --set site.edge.max_queue=512; may be repeated",
        "json": "print one JSON object on stdout; progress goes to stderr",
    },
)
def edges(_: Context, roll: bool = False, set: list[str] | None = None, json: bool = False) -> None:
    """The lines in which each edge's HAProxy config differs from the site's."""
    from serving.fleet.cli.edge_configs import edge_lines, read_edges, roll_edges

    progress = progress_lines(json)
    made = run_composed(
        "rollout", set, lambda config: roll_edges(config, progress) if roll else read_edges(config)
    )
    content: dict[str, Any] = {
        one.edge.name: {"lines": one.lines, "problem": one.problem} for one in made
    }
    print_result(content, json, edge_lines(made, rolled=roll))
