"""The task of `fab -l` for the hosts of each model: parse, call one function, print."""

from __future__ import annotations

from dataclasses import asdict

from invoke import Context, task

from serving.fleet.cli.task_output import print_result, run_composed

__all__ = ["place"]


@task(
    iterable=["set"],
    help={
        "alone": "models that shall have their hosts alone, as in --alone big,llm",
        "shared": "models that may have others beside them again",
        "set": "one key of conf/place.yaml, as in --set place.least=2; may be repeated",
        "json": "print one JSON object on stdout; progress goes to stderr",
    },
)
def place(
    _: Context,
    alone: str = "",
    shared: str = "",
    set: list[str] | None = None,
    json: bool = False,
) -> None:
    """Propose the hosts of each model by memory and load, as YAML; changes nothing."""
    from serving.fleet.cli.place import placement_lines, propose_placement

    found = run_composed("place", set, lambda config: propose_placement(config, alone, shared))
    print_result(asdict(found), json, placement_lines(found))
