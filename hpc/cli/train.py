"""`lockgate train`: compose, freeze, submit; the terminal is free at once."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from conf import ConfigError

DESCRIPTION = """\
Submit a training run. Overrides are in Hydra's grammar: task=NAME optim.lr=3e-4 cluster=local
Everything is resolved and frozen now: editing code or config later changes nothing in the job.
"""
EPILOG = """\
examples, each of a NAME in conf/task:
  lockgate train task=NAME
  lockgate train task=NAME cluster.nodes=4 cluster.gpus_per_node=8 cluster.tasks_per_node=8
  lockgate train task=NAME cluster=local          ranks as processes on this machine, no Slurm
  lockgate train -m task=NAME optim.lr=1e-3,3e-4 seed=1,2        four runs
  lockgate train task=NAME --dry-run              the batch script and the spec, nothing sent
  lockgate train task=NAME --cfg job              every key that can be overridden

Secrets never go into overrides: export SECRET=..., key='${oc.env:SECRET}',
'cluster.pass_environment=[SECRET]'.
"""


def main(argv: Sequence[str]) -> int:
    """Run `lockgate train ARGV`; returns the exit code. Raises `ConfigError` and `JobError`."""
    options = _parser().parse_intermixed_args(list(argv))
    from conf import compose
    from hpc.jobs.spec.names import check_config_names, check_typed_names
    from hpc.jobs.spec.sweep import is_sweep, node_list_as_text, trials

    check_typed_names(options.overrides)
    overrides = [node_list_as_text(text) for text in options.overrides]
    if not options.multirun:
        for text in overrides:
            if is_sweep(text):
                raise ConfigError(
                    f"{text} names several values; a sweep wants -m{_or_quotes(text)}"
                )
    configs = []
    for trial in trials(overrides):
        configs.append(compose("train", trial))
        check_config_names(configs[-1], trial)
    if options.cfg:
        return _show(configs[0], options.json)
    return _submit(configs, options)


def _or_quotes(override: str) -> str:
    from conf.overrides import quoting

    advice = quoting(override)
    return f", and a text with a comma wants quotes: {advice}" if advice else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lockgate train",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="what to change")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="submit a run per combination"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent")
    parser.add_argument("--cfg", choices=["job"], help="show the composed config and stop")
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    return parser


def _show(config: Any, as_json: bool) -> int:
    from omegaconf import OmegaConf

    if as_json:
        print(json.dumps(OmegaConf.to_container(config, resolve=False), indent=2))
    else:
        print(OmegaConf.to_yaml(config, resolve=False), end="")
    return 0


def _submit(configs: list[Any], options: argparse.Namespace) -> int:
    from hpc.jobs.submit import SubmitPlan, Submitted, check_sizes, plan, submit

    # All of a sweep is valid before any of it is sent.
    plans = _merged([plan(config) for config in configs])
    check_sizes(plans)
    if options.dry_run:
        shown = [_plan_fields(ready) for ready in plans]
        _print(shown, options, "\n".join(_plan_text(ready) for ready in plans))
        return 0
    done: list[tuple[SubmitPlan, Submitted]] = []
    try:
        for ready in plans:
            done.append((ready, submit(ready)))
    finally:
        if done:  # what was sent before something went wrong is sent, and shown
            shown = [_fields(ready, sent) for ready, sent in done]
            _print(shown, options, "\n".join(_text(ready, sent) for ready, sent in done))
    return 0


def _merged(plans: list[Any]) -> list[Any]:
    """The plans without repetitions, whose number goes to standard error."""
    unique: dict[str, Any] = {}
    for ready in plans:
        unique.setdefault(ready.spec.digest, ready)
    if repeated := len(plans) - len(unique):
        print(f"lockgate: merged as repetitions: {repeated} of {len(plans)} runs", file=sys.stderr)
    return list(unique.values())


def _print(shown: list[dict[str, Any]], options: argparse.Namespace, text: str) -> None:
    if options.json:
        print(json.dumps(shown if options.multirun else shown[0], indent=2))
    else:
        print(text)


def _fields(ready: Any, sent: Any) -> dict[str, Any]:
    return {
        "run": sent.run.name,
        "job_id": sent.job_id,
        "folder": str(sent.run.folder),
        "spec_digest": ready.spec.digest,
        "source_digest": ready.spec.source.digest,
        "project_digest": ready.spec.project.digest if ready.spec.project else None,
        "dataset_digest": ready.spec.dataset.digest,
    }


def _plan_fields(ready: Any) -> dict[str, Any]:
    return {
        "run": ready.run.name,
        "spec": ready.spec.content(),
        "script": ready.script,
        "variables": sorted(ready.variables),
    }


def _text(ready: Any, sent: Any) -> str:
    ranks = f"{ready.cluster.nodes} x {ready.cluster.tasks_per_node}"
    where = f"job {sent.job_id} on {ready.cluster.kind}"
    project = f", project {_code(ready.spec.project)}" if ready.spec.project else ""
    return (
        f"{sent.run.name}\n"
        f"  submitted as {where}: {ranks} ranks, {ready.spec.config.steps} steps\n"
        f"  data {ready.spec.dataset.name}@{ready.spec.dataset.digest[:12]}, "
        f"source {_code(ready.spec.source)}{project}\n"
        f"  follow it: lockgate logs {sent.run.name} -f"
    )


def _code(source: Any) -> str:
    return source.digest[:12] + (" with edits that are not committed" if source.dirty else "")


def _plan_text(ready: Any) -> str:
    names = ", ".join(sorted(ready.variables))
    return (
        f"{ready.script}\n# environment: {names}\n"
        f"# spec of {ready.run.name} (nothing was submitted)\n{ready.spec.text()}"
    )
