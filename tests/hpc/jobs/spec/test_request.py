"""Requests that could never work as meant, each refused at submit; and their neighbours, which are
not."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from conf import ConfigError, compose, options
from hpc.jobs.spec.config import cluster_config, run_config, with_whole_numbers
from hpc.jobs.spec.request import check_request, check_runs_folder
from hpc.jobs.spec.resolve import resolve
from hpc.jobs.spec.sbatch_options import OWN, sbatch_options

TASK = f"task={options('task')[0]}"
MORE = "+cluster.additional_parameters"
REFUSED = [
    # memory
    (["cluster.mem_gb=0"], "cluster.mem_gb=0.0: must be above 0"),
    (["cluster.mem_gb=-1"], "cluster.mem_gb=-1.0: must be above 0"),
    (["cluster.mem_gb=0.0001"], "cluster.mem_gb=0.0001: must be above 0, from 0.001 (1 MB)"),
    (["cluster.mem_gb=1e300"], "cluster.mem_gb=1e+300: must be above 0"),
    ([f"{MORE}.mem=0"], "cluster.additional_parameters.mem=0: sbatch --mem is Lockgate's; set clu"),
    ([f"{MORE}.mem_per_cpu=1G"], "mem_per_cpu=1G beside cluster.mem_gb=2: Slurm takes one of them"),
    ([f"{MORE}.mem-per-gpu=1G"], "mem_per_gpu=1G beside cluster.mem_gb=2"),
    ([f"{MORE}.mem_per_c=1G"], "mem_per_c=1G beside cluster.mem_gb=2"),  # sbatch completes it
    # options of sbatch that are Lockgate's own
    ([f"{MORE}.requeue=false"], "requeue=false: sbatch --requeue is Lockgate's; cluster.max_"),
    ([f"{MORE}.no_requeue=true"], "no_requeue=true: sbatch --no-requeue is Lockgate's"),
    ([f"{MORE}.array=0-3"], "array=0-3: sbatch --array is Lockgate's; a sweep is lockgate train"),
    ([f"{MORE}.arra=0-3"], "arra=0-3: sbatch --array is Lockgate's"),
    ([f"{MORE}.open-mode=truncate"], "sbatch --open-mode is Lockgate's; a run's logs are in its"),
    ([f"{MORE}.ntasks=7"], "sbatch --ntasks is Lockgate's; set cluster.nodes and cluster"),
    ([f"{MORE}.export=ALL"], "name variables in cluster.pass_environment"),
    # texts that are no line of the script
    ([f"{MORE}.comment='a\n#SBATCH --uid=0'"], r"comment='a\n#SBATCH --uid=0': must be one"),
    ([f"{MORE}.comment='a\u2028b'"], r"comment='a\u2028b': must be one line of text"),
    ([f"{MORE}.comment=''"], "comment='': must be one line of text; null leaves it out"),
    (["cluster.partition='a\n#SBATCH --uid=0'"], r"cluster.partition='a\n#SBATCH --uid=0': must"),
    (["cluster.account=''"], "cluster.account='': must be one line of text; null leaves it out"),
    (["cluster.qos='a\rb'"], r"cluster.qos='a\rb': must be one line"),
    ([f"{MORE}.comment=[a]"], "comment=['a']: must be a text, a number, true or false"),
    ([f"{MORE}.N=3"], "additional_parameters.N: a long option of sbatch without its dashes"),
    ([f"{MORE}.wait_all_nodes=1", f"{MORE}.wait-all-nodes=0"], "--wait-all-nodes is given twice"),
    # nodes
    (["cluster.exclude='n1 n2'"], "cluster.exclude='n1 n2': must be a list of nodes as Slurm"),
    (["cluster.exclude='n1\n#SBATCH --uid=0'"], "must be a list of nodes as Slurm writes it"),
    (["cluster.exclude=''"], "cluster.exclude='': must be a list of nodes"),
    (["cluster.exclude='n[1-3'"], "must be a list of nodes"),
    (["cluster.exclude='n1,'"], "must be a list of nodes"),
    # a run that would not come back, and kernels without their chip
    (["cluster.signal_delay_s=0"], "cluster.signal_delay_s=0: at its time limit the job would be"),
    (["cluster=local", "cluster.signal_delay_s=0"], "or give the run one attempt"),
    (["cluster.signal_delay_s=70000", "cluster.timeout_min=9999"], "must be at most 65535"),
    (["kernels=triton", "cluster.gpus_per_node=0"], "kernels=triton with cluster.gpus_per_node=0"),
    (["kernels=triton", "cluster=local"], "kernels=triton with cluster.gpus_per_node=0"),
    # numbers beyond every run
    (["steps=100000000000000000000"], "steps=100000000000000000000: must be at most 2147483647"),
    (["steps=1e20"], "steps=100000000000000000000: must be at most"),
    (["steps=1e3000"], "steps is inf, not of type int"),
    (["steps=1.5e0"], "steps is 1.5, not of type int"),
    (["steps=10**20"], "steps is '10**20', not of type int"),
    (["seed=99999999999999999999"], "seed=99999999999999999999: must be at most"),
    (["cluster.nodes=1e10"], "cluster.nodes=10000000000: must be at most"),
    (["checkpoint_interval=-1"], "checkpoint_interval=-1: must be at least 0"),
]  # fmt: skip
TAKEN = [
    ["cluster.mem_gb=0.001"],
    ["cluster.mem_gb=null", f"{MORE}.mem_per_cpu=1G"],
    [f"{MORE}.constraint=h200", f"{MORE}.hold=true", f"{MORE}.nice=100", f"{MORE}.gpus=2"],
    [f"{MORE}.comment='one line, \\'quoted\\' # and all'"],
    [f"{MORE}.time_min=5", f"{MORE}.nodelist='n1,n2'", f"{MORE}.exclusive=false"],
    ["cluster.partition='a,b'", "cluster.account=lab", "cluster.qos=high"],
    ["cluster.exclude='n1,n2'"],
    ["cluster.exclude='rack[1-2]-n[01-03,7],login.example'"],
    ["cluster.signal_delay_s=0", "cluster.max_requeues=0"],
    ["kernels=triton"],
    ["kernels=triton", "cluster.gpus_per_node=0", f"{MORE}.gres='gpu:h100:2'"],
    ["kernels=triton", "cluster=local", "cluster.pass_environment=[TRITON_INTERPRET]"],
    ["kernels=auto", "cluster.gpus_per_node=0"],
    ["steps=1e3", "cluster.nodes=1e0", "cluster.timeout_min=1.2e2"],
    ["checkpoint_interval=0"],
]


@cache
def composed(*groups: str) -> DictConfig:
    return compose("train", [TASK, *groups])


def config_of(overrides: list[str]) -> DictConfig:
    """A config with `overrides` as Hydra parses them, composed once for all that share groups."""
    config = deepcopy(composed(*(text for text in overrides if text.startswith("cluster="))))
    OmegaConf.set_struct(config, False)
    for text in overrides:
        override = OverridesParser.create().parse_override(text)
        if override.key_or_group != "cluster":
            OmegaConf.update(config, override.key_or_group, override.value())
    return config


def check(overrides: list[str]) -> None:
    config = config_of(overrides)
    check_request(run_config(config), cluster_config(config))


@pytest.mark.parametrize(("overrides", "words"), REFUSED, ids=lambda value: ascii(value)[:60])
def test_a_request_that_cannot_work_is_refused_by_key(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check(overrides)
    assert words in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("overrides", TAKEN, ids=lambda value: ascii(value)[:60])
def test_a_request_that_can_work_is_taken(overrides: list[str]) -> None:
    check(overrides)


def test_a_whole_number_is_one_spec_however_it_is_written() -> None:
    plain = []
    for text in ("1000", "1e3", "1000.0"):
        config = config_of([f"steps={text}", f"cluster.timeout_min={text}"])
        run, cluster = run_config(config), cluster_config(config)
        plain.append(with_whole_numbers(resolve(config, []), run, cluster))
    assert plain[0] == plain[1] == plain[2]
    kinds = [(type(one["steps"]), type(one["cluster"]["timeout_min"])) for one in plain]
    assert kinds == [(int, int)] * 3


@pytest.mark.parametrize("value", [None, False])
def test_an_option_that_is_off_is_left_out(value: object) -> None:
    assert sbatch_options({"exclusive": value, "hold": True}) == {"hold": True}


@given(st.sampled_from(sorted(OWN)), st.data())
def test_no_spelling_that_sbatch_completes_reaches_an_option_of_lockgates(name, data) -> None:
    spelt = name[: data.draw(st.integers(3, len(name)))]
    if spelt == "gpus":  # an option of its own
        return
    with pytest.raises(ValueError, match="is Lockgate's"):
        sbatch_options({spelt.replace("-", data.draw(st.sampled_from("-_"))): "1"})


@pytest.mark.parametrize(
    "folder", ["/runs/%j", "/runs/a%tb", "/x%A", "/%a", "/x\\y", "/a:b", "/x\n#SBATCH --uid=0"]
)
def test_a_folder_of_runs_that_becomes_another_is_refused(folder: str) -> None:
    with pytest.raises(ConfigError, match=r"the folder of runs, .* take for something else") as no:
        check_runs_folder(folder)
    assert str(no.value).isprintable()


@pytest.mark.parametrize("folder", ["/runs/100%done", "/runs/%d", "/a b/it's", "/%%"])
def test_any_other_folder_of_runs_is_taken(folder: str) -> None:
    check_runs_folder(folder)
