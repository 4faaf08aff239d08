"""Goals of the training plane, each by its name; see `scripts.goals`."""

from __future__ import annotations

from collections.abc import Mapping

from scripts.goals import Goal

DEEPSPEED = "step time, against a bare DeepSpeed loop"
TORCH = "step time, against a bare PyTorch loop"
STALL = "stall of a checkpoint, asynchronous against synchronous"
PROMPT = "from Enter to the prompt, s"
SWEEP = "from Enter to the prompt for 40 trials, s"
SWEEP_TOOL = "seconds for 40 trials, against hydra-submitit-launcher"
SWEEP_RPCS = "Slurm RPCs for 40 trials, against hydra-submitit-launcher"
PART_OF = {
    DEEPSPEED: "step",
    TORCH: "step",
    STALL: "stall",
    PROMPT: "submit",
    SWEEP: "submit",
    SWEEP_TOOL: "submit",
    SWEEP_RPCS: "submit",
}
BOUNDS = {DEEPSPEED: 1.03, TORCH: 1.03, STALL: 0.1, PROMPT: 1, SWEEP: 3}


def all_goals(measured: Mapping[str, float], bounds: Mapping[str, float]) -> list[Goal]:
    """Every goal of training. `bounds` are the other tools' values, by the goal's name."""
    return [
        Goal(name, BOUNDS[name], measured.get(name))
        if name in BOUNDS
        else Goal(name, bounds.get(name), measured.get(name), "below")
        for name in PART_OF
    ]
