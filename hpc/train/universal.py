"""A checkpoint for any number of ranks, made of one for some: DeepSpeed's universal checkpoint.

It is made when a job with other ranks or another ZeRO stage goes on, by rank 0, in a process of its
own, into `<step>.universal` beside the checkpoint. It is sealed as the checkpoint is, and it is
used again while its checkpoint is the same.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from hpc.jobs.errors import error_line
from hpc.jobs.run.elastic import MOMENTS
from hpc.train import manifest
from hpc.train.errors import CheckpointError
from serving.artifact.digest import file_sha256
from serving.artifact.durable import replace_folder

log = logging.getLogger(__name__)

SUFFIX = ".universal"
CONVERTER = "deepspeed.checkpoint.ds_to_universal"
# The rank's place among the others is none of the converter's.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
OPTIMIZER_STATE = "optimizer_state_dict"
MODEL_FILES = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt")
"""The names under which the ZeRO stages below 3, and stage 3, look for the counts of steps."""


def universal_folder(checkpoint: Path) -> Path:
    """The folder of the universal form of a checkpoint, whether it is there or not."""
    return checkpoint.with_name(checkpoint.name + SUFFIX)


def convert(checkpoint: Path, parts: str) -> Path:
    """The universal form of `checkpoint`, made unless there is a good one of it.

    `parts` is the folder of DeepSpeed's files in both. Raises `CheckpointError` where the converter
    or the disk fails; the checkpoint stays as it is.
    """
    target, source = universal_folder(checkpoint), file_sha256(checkpoint / manifest.FILE)
    if _made_from(target) == source:
        return target
    staging = checkpoint.with_name(f".staging-{checkpoint.name}{SUFFIX}")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        _run_converter(checkpoint / parts, staging / parts)
        _complete_for_all_stages(staging / parts)
        of = manifest.read_manifest(checkpoint)
        manifest.seal_checkpoint(
            staging, of.step, of.world_size, of.spec_digest, of.layout, made_from=source
        )
        replace_folder(staging, target)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {checkpoint.name} could not be converted for other ranks: {error}. "
            "It is unchanged; free some space and resume again."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _made_from(target: Path) -> str | None:
    """The manifest that a good universal checkpoint was made from; None without one."""
    if manifest.checkpoint_fault(target) is not None:
        return None
    return manifest.read_manifest(target).made_from


def _run_converter(source: Path, target: Path) -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in RANK_VARIABLES
    } | {
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    # Without inject_missing_state the stages 1 and 2 end with "universal_checkpoint_info state is
    # missing": only Megatron writes that.
    command = [
        *(sys.executable, "-m", CONVERTER, "--inject_missing_state"),
        *("--input_folder", str(source), "--output_folder", str(target)),
        *("--num_extract_workers", "1", "--num_merge_workers", "1"),
    ]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        log.error("%s", done.stderr.rstrip()[-4000:])
        raise CheckpointError(
            f"checkpoint {source.parent.name} could not be converted for other ranks: "
            f"{error_line(done.stderr)[-300:]}. It is unchanged; go on with as many ranks and the "
            "ZeRO stage of before."
        )


def _complete_for_all_stages(parts: Path) -> None:
    """Add what a ZeRO stage looks for and the converter wrote for the other stages only.

    Stage 3 looks for one count of steps in the optimizer's state, the stages 1 and 2 for one of
    each weight; and only they expect a tensor to be the entry of a mapping.
    """
    found = next(parts / name for name in MODEL_FILES if (parts / name).is_file())
    for name in MODEL_FILES:
        if not (parts / name).exists():
            shutil.copyfile(found, parts / name)
    path = parts / "zero" / "optimizer_state.pt"
    state = torch.load(path, map_location="cpu", weights_only=False)
    folders = sorted({one.parent for one in (parts / "zero").rglob(f"{MOMENTS[0]}.pt")})
    if OPTIMIZER_STATE in state:  # of stage 3
        step = state[OPTIMIZER_STATE]["state"][0]["step"]
        for folder in folders:
            torch.save(step, folder / "step.pt")
            for name in ("fp32", *MOMENTS):
                tensor = torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True)
                torch.save({"param": tensor}, folder / f"{name}.pt")
        state["ds_version"] = version("deepspeed")
    else:
        step = torch.load(folders[0] / "step.pt", map_location="cpu", weights_only=True)
        state[OPTIMIZER_STATE] = {
            "state": {0: {"step": step}},
            "param_groups": state["param_groups"],
        }
    torch.save(state, path)
