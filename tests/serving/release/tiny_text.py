"""A tiny language model that a real Triton can serve: every byte costs `bits`, in numpy alone."""

import json
import math
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from serving.artifact.digest import file_sha256, tree_digest

CONFIG = """name: "webster"
backend: "python"
max_batch_size: 0
input [
  { name: "text" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "max_new_tokens" data_type: TYPE_INT32 dims: [ 1 ] }
]
output [ { name: "nats" data_type: TYPE_FP64 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""

MODEL = """import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()[0]
            nats = np.array([len(text) * BITS * np.log(2)])
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("nats", nats)]))
        return answers
"""

TEXT = "".join(f"{number}. A lock raises {number % 7} boats.\n" for number in range(3000))


def write_dataset(data_root: Path) -> Path:
    """A text dataset of `TEXT`, published under its digest."""
    staged = data_root / "webster/staged"
    staged.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.save(str(staged / "tokenizer.json"))
    (staged / "holdout.txt").write_text(TEXT)
    (staged / "transform.json").write_text('{"kind": "text"}')
    return staged.rename(data_root / "webster" / tree_digest(staged)[:12])


def write_candidate(runs: Path, dataset: Path, run: str, bits: float) -> Path:
    """Write `runs/RUN/candidate` of a model that needs `bits` for every byte."""
    folder = runs / run / "candidate"
    version = folder / "version"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    (version / "model.py").write_text(MODEL.replace("BITS", repr(bits)))
    (version / "model.onnx").write_bytes(b"\x08\x07 no network in here")
    for name in ("transform.json", "tokenizer.json"):
        (version / name).write_bytes((dataset / name).read_bytes())
    (folder / "reference.json").write_text("{}\n")
    examples = [
        {
            "inputs": {
                "text": {"dtype": "BYTES", "shape": [1], "data": ["x" * size]},
                "max_new_tokens": {"dtype": "INT32", "shape": [1], "data": [0]},
            },
            "outputs": {
                "nats": {"dtype": "FP64", "shape": [1], "data": [size * bits * math.log(2)]}
            },
            "atol": 1e-6,
            "rtol": 1e-6,
        }
        for size in range(1, 9)
    ]
    (folder / "golden.json").write_text(json.dumps(examples))
    content = {
        "model": "webster",
        "task": "lm",
        "lineage": {
            "run": run,
            "spec_digest": "1" * 64,
            "source_digest": "2" * 64,
            "dataset": {"name": "webster", "digest": tree_digest(dataset), "path": str(dataset)},
        },
        "transform_digest": file_sha256(version / "transform.json"),
        "inputs": [
            {"name": "text", "dtype": "BYTES", "shape": [1]},
            {"name": "max_new_tokens", "dtype": "INT32", "shape": [1]},
        ],
        "outputs": [{"name": "nats", "dtype": "FP64", "shape": [1]}],
        "metrics": {},
        "requires": {"python": "3.11"},
        "code": ["model.py"],
    }
    (folder / "candidate.json").write_text(json.dumps(content))
    return folder
