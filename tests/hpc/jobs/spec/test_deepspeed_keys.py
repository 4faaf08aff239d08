"""DeepSpeed's keys under `deepspeed`: the table is the installed one's, and what is refused."""

from __future__ import annotations

import enum
import subprocess
import sys
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from conf import ConfigError, compose
from hpc.jobs.spec.config import TrainConfig, train_config
from hpc.jobs.spec.deepspeed_keys import KEYS, OURS, ZERO, deepspeed_settings
from hpc.train.engine import deepspeed_config

LEFT_OUT = {
    # ours, deprecated, or of parts that Lockgate does not run
    "stage", "compute_grad_norm", "load_from_fp32_weights", "elastic_checkpoint", "zenflow",
    "cpu_offload", "cpu_offload_param", "cpu_offload_use_pin_memory", "legacy_stage1",
    "gather_16bit_weights_on_model_save", "stage3_gather_fp16_weights_on_model_save",
    "zero_quantized_nontrainable_weights", "pipeline_loading_checkpoint", "override_module_apply",
    "save_muon_momentum_buffer_in_memory", "leaf_module", "offload_param", "offload_optimizer",
    "super_offload",
}  # fmt: skip


def configured(*overrides: str) -> TrainConfig:
    return train_config(compose("train", ["task=flights", *overrides]))


def plain_kind(annotation: Any) -> Any:
    """A field's type as the table writes it."""
    options = [one for one in typing.get_args(annotation) if one is not types.NoneType]
    kind = options[0] if options else annotation
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {one.value for one in kind}
    return str if kind is Path else kind


def models() -> list[tuple[str, Any]]:
    from deepspeed.runtime.zero import offload_config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    return [
        (ZERO, DeepSpeedZeroConfig),
        (f"{ZERO}.offload_param", offload_config.DeepSpeedZeroOffloadParamConfig),
        (f"{ZERO}.offload_optimizer", offload_config.DeepSpeedZeroOffloadOptimizerConfig),
    ]


@pytest.mark.parametrize("place", range(3), ids=["zero", "offload_param", "offload_optimizer"])
def test_every_key_type_and_bound_is_the_installed_deepspeeds(place: int) -> None:
    prefix, model = models()[place]
    theirs = {field.alias or name: field for name, field in model.model_fields.items()}
    ours = {
        key.removeprefix(f"{prefix}."): kind
        for key, kind in KEYS.items()
        if key.rpartition(".")[0] == prefix
    }
    fields = model.model_fields
    left_out = {fields[name].alias or name for name in LEFT_OUT & set(fields)}
    assert set(ours) == set(theirs) - left_out
    for name, kind in ours.items():
        field = theirs[name]
        wanted = plain_kind(field.annotation)
        found = set(typing.get_args(kind.kind)) if isinstance(wanted, set) else kind.kind
        assert found == wanted, name
        bounds: dict[str, Any] = {}
        for one in field.metadata:
            bounds |= {key: getattr(one, key) for key in ("gt", "ge", "le") if hasattr(one, key)}
        least = bounds.get("ge", bounds["gt"] + 1 if "gt" in bounds else None)
        assert (kind.least, kind.most) == (least, bounds.get("le")), name


def test_the_keys_beside_zero_are_read_by_deepspeed() -> None:
    from deepspeed.runtime import constants
    from deepspeed.runtime.swap_tensor.aio_config import AIO_DEFAULT_DICT

    single = {key for key in KEYS if "." not in key}
    assert single <= {value for value in vars(constants).values() if isinstance(value, str)}
    assert {key[4:] for key in KEYS if key.startswith("aio.")} == set(AIO_DEFAULT_DICT)


def test_a_key_reaches_deepspeed_in_its_type_and_above_lockgates_choice() -> None:
    config = configured(
        "+deepspeed.zero_optimization.overlap_comm=true",
        "+deepspeed.zero_optimization.reduce_bucket_size=5e8",
        "+deepspeed.communication_data_type=bf16",
        "+deepspeed.zero_optimization.offload_optimizer.device=cpu",
    )
    told = deepspeed_config(config.run, config.optim, bf16=False, world_size=2)
    zero = told["zero_optimization"]
    assert (zero["stage"], zero["overlap_comm"], zero["reduce_scatter"]) == (2, True, True)
    assert type(zero["reduce_bucket_size"]) is int
    assert zero["offload_optimizer"] == {"device": "cpu"}
    assert told["communication_data_type"] == "bf16"
    assert told["zero_force_ds_cpu_optimizer"] is False  # any optimizer is offloaded
    without = deepspeed_config(configured().run, config.optim, bf16=False, world_size=2)
    assert without["zero_optimization"]["overlap_comm"] is False


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("+deepspeed.zero_optimization.overlap_com=true", r"overlap_com: .* Nearest: overlap_comm"),
        ("+deepspeed.comunication_data_type=bf16", "Nearest: communication_data_type"),
        (
            "+deepspeed.zero_optimisation.overlap_comm=true",
            r"Nearest: zero_optimization\.over",
        ),
        ("+deepspeed.communication_data_type=bf17", "not one of fp16, bf16, fp32"),
        ("+deepspeed.zero_optimization.reduce_bucket_size=big", "is 'big', not of type int"),
        ("+deepspeed.zero_optimization.reduce_bucket_size=0", "must be at least 1"),
        ("+deepspeed.zero_optimization.overlap_comm=1", "is 1, not of type bool"),
        ("+deepspeed.zero_optimization.overlap_comm=null", "is None, not of type bool"),
        ("+deepspeed.zero_optimization=3", "set a key inside it, such as"),
        ("+deepspeed.zero_optimization.offload_param.device=cpu", "set zero_stage=3"),
        ("+deepspeed.zero_optimization.offload_optimizer.device=nvme", r"nvme_path.* missing"),
        ("+deepspeed.zero_optimization.offload_optimizer.pin_memory=true", r"device is missing"),
        ("+deepspeed.zero_optimization.stage=3", "set zero_stage instead"),
        ("+deepspeed.bf16.enabled=true", r"deepspeed\.bf16: .*set precision instead"),
        (
            "deepspeed.zero_optimization.overlap_comm=true",
            r"type \+deepspeed\.zero_optim",
        ),
        ("prefetch_batches=-1", "must be at least 0"),
        ("compile=1", "is 1, not of type bool"),
    ],
)
def test_refused_in_a_sentence(words: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        configured(words)


@pytest.mark.parametrize("key", OURS)
def test_a_key_that_lockgate_decides_is_refused_with_its_name(key: str) -> None:
    nested: Any = 1
    for part in reversed(key.split(".")):
        nested = {part: nested}
    with pytest.raises(ConfigError, match=rf"^deepspeed\.{key}: .* set {OURS[key].split()[0]}"):
        deepspeed_settings(nested, 2)


def test_each_named_key_of_ours_is_one_of_the_tree() -> None:
    valid = {*map(str, compose("train", ["task=flights"])), "optim.schedule"}
    for words in OURS.values():
        assert words.replace(",", "").split()[0] in valid


def test_what_muon_needs_under_zero_3_is_not_overridden() -> None:
    muon = ["optim=muon", "gradient_clipping=0", "zero_stage=3"]
    key = "+deepspeed.zero_optimization.reduce_scatter"
    with pytest.raises(ConfigError, match=r"reduce_scatter=true: Muon needs false with zero_stage"):
        configured(*muon, f"{key}=true")
    assert configured(*muon, f"{key}=false").run.zero_stage == 3
    assert configured("zero_stage=3", f"{key}=true").run.zero_stage == 3


def test_checking_imports_neither_torch_nor_deepspeed() -> None:
    done = subprocess.run(
        [sys.executable, "-c",
         "import sys; from conf import compose; from hpc.jobs.spec.config import train_config\n"
         "train_config(compose('train', ['task=flights', '+deepspeed.prescale_gradients=true']))\n"
         "print(sorted({'torch', 'deepspeed'} & set(sys.modules)))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
