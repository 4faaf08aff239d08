"""`lockgate train`: compose, freeze, submit; the terminal is free at once."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from conf import ConfigError

if TYPE_CHECKING:
    from hpc.jobs.spec.sweeper import SweeperConfig

DESCRIPTION = """\
Submit a training run. Overrides are in Hydra's grammar: task=NAME optim.lr=3e-4 cluster=local
Everything is resolved and frozen now: editing code or config later changes nothing in the job.
"""
EPILOG = """\
examples, each of a NAME in conf/task:
  lockgate train task=NAME
  lockgate train task=NAME cluster.nodes=4 cluster.gpus_per_node=8 cluster.tasks_per_node=8
  lockgate train task=NAME cluster=local          ranks as processes on this machine, no Slurm
  lockgate train -m task=NAME optim.lr=1e-3,3e-4 seed=1,2        four runs, one job array
  lockgate train -m sweep=lr task=NAME optim.lr=1e-3,3e-4,1e-4   again: only what is missing
  lockgate train -m task=NAME seed=1,2,3,4,5,6 sweeper.stop=median   ends the worse trials early
  lockgate train -m task=NAME sweeper=optuna sweeper.trials=40 'optim.lr=interval(1e-5,1e-2)'
  lockgate train task=NAME after=RUN begin=now+2hours            on Slurm, when RUN has finished
  lockgate train task=NAME --dry-run              the batch script and the spec, nothing sent
  lockgate train task=NAME --cfg job              every key that can be overridden

Secrets never go into overrides: export SECRET=..., key='${oc.env:SECRET}',
'cluster.pass_environment=[SECRET]'.
"""


def main(argv: Sequence[str]) -> int:
    """Run `lockgate train ARGV`; returns the exit code. Raises `ConfigError` and `JobError`."""
    options = _parser().parse_intermixed_args(list(argv))
    from hpc.jobs.spec.names import check_config_names, check_typed_names
    from hpc.jobs.spec.sweep import first_trial, is_sweep, list_as_text, swept_keys, trials
    from hpc.jobs.spec.sweeper import SweeperConfig, names_sweeper
    from hpc.jobs.spec.trial_configs import compose_trials

    check_typed_names(options.overrides)
    overrides = [list_as_text(text) for text in options.overrides]
    sweeper = _sweeper(overrides) if names_sweeper(overrides) else SweeperConfig()
    if not options.multirun:
        for text in overrides:
            if is_sweep(text):
                raise ConfigError(
                    f"{text} names several values; a sweep wants -m{_or_quotes(text)}"
                )
        if sweeper != SweeperConfig():
            raise ConfigError("a line with a sweeper is a sweep, which wants -m")
    overrides += sweeper.axes_beside(overrides)
    if sweeper.samples and options.multirun and not options.cfg:
        from hpc.cli.train_search import submit_search

        return submit_search(overrides, sweeper, options)
    if sweeper.samples:
        overrides = first_trial(overrides)
    combinations = trials(overrides)
    configs = compose_trials(combinations)
    for config, trial in zip(configs, combinations, strict=True):
        check_config_names(config, trial)
    if options.cfg:
        return _show(configs[0], options.json)
    if options.multirun:
        from hpc.cli.train_sweep import submit_sweep

        return submit_sweep(configs, combinations, swept_keys(overrides), sweeper, options)
    return _submit(configs[0], options)


def _sweeper(overrides: Sequence[str]) -> SweeperConfig:
    """The sweeper that a line names, see `conf/sweeper`."""
    from conf import compose
    from hpc.jobs.spec.sweep import check_in_common, first_trial
    from hpc.jobs.spec.sweeper import sweeper_config

    check_in_common(overrides)
    return sweeper_config(compose("train", first_trial(overrides)))


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
    parser.add_argument(
        "--retry-failed", action="store_true", help="of a sweep: send ended trials again"
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


def _submit(config: Any, options: argparse.Namespace) -> int:
    from hpc.jobs.spec.sending import sending_config
    from hpc.jobs.submit import check_sizes, plan, submit, waiting_for

    sending = sending_config(config)
    if sending.sweep is not None:
        raise ConfigError(f"sweep={sending.sweep}: a sweep wants -m, and a run of its own no sweep")
    (ready,) = waiting_for([plan(config)], sending)
    check_sizes([ready])
    if options.dry_run:
        from hpc.cli.dry_run import forecast_text
        from hpc.jobs.forecast import forecast

        expected = forecast([ready], ready.script)
        text = f"{plan_text(ready)}{forecast_text(expected)}"
        print_result({**plan_fields(ready), **expected.as_dict()}, options.json, text)
        return 0
    sent = submit(ready)
    print_result(sent_fields(ready, sent), options.json, _text(ready, sent))
    return 0


def print_result(shown: Any, as_json: bool, text: str) -> None:
    """Print `shown` as JSON, or else `text`."""
    print(json.dumps(shown, indent=2) if as_json else text)


def sent_fields(ready: Any, sent: Any) -> dict[str, Any]:
    """A submitted run as plain values, as in `lockgate train --json`."""
    return {
        "run": sent.run.name,
        "job_id": sent.job_id,
        "folder": str(sent.run.folder),
        **digest_fields(ready.spec),
    }


def digest_fields(spec: Any) -> dict[str, Any]:
    """The digests of a spec and of what it names."""
    return {
        "spec_digest": spec.digest,
        "source_digest": spec.source.digest,
        "project_digest": spec.project.digest if spec.project else None,
        "dataset_digest": spec.dataset.digest,
    }


def plan_fields(ready: Any) -> dict[str, Any]:
    """A run that would be submitted as plain values, as in `lockgate train --dry-run --json`."""
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


def plan_text(ready: Any) -> str:
    """A run that would be submitted: its script, the names of its variables, its spec."""
    names = ", ".join(sorted(ready.variables))
    return (
        f"{ready.script}\n# environment: {names}\n"
        f"# spec of {ready.run.name} (nothing was submitted)\n{ready.spec.text()}"
    )
