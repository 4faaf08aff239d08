"""A tiny world that a real Triton can serve: a dataset where lateness follows from `distance`, and
candidates that forecast it by `sigmoid(slope * distance)`, in numpy alone.

Every argument of `write_candidate` is a way for a package to be wrong.
"""

import json
import os
import tempfile
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conf import compose
from serving.artifact.digest import bytes_sha256, file_sha256, tree_digest
from serving.fleet.rollout.journal import Journal
from serving.release.settings import ReleaseSettings, release_settings
from serving.runtime.features import Category, Number
from serving.runtime.tabular_transform import TabularTransform, Target
from tests import confined

REPO = Path(__file__).resolve().parents[3]

#: Gates that judge in seconds; every other threshold is the one people get.
QUICK = ["gates.latency.rounds=2", "gates.latency.round_s=0.3", "gates.latency.min_requests=10",
         "gates.latency.low.p99_ms=2000", "gates.latency.high.p99_ms=5000",
         "gates.latency.low.p50_ms=1000", "gates.latency.high.p50_ms=2000",
         "gates.latency.slack_ms=2000"]  # fmt: skip


def serving_env() -> Path:
    return Path(os.environ.get("LOCKGATE_SERVING_ENV", REPO / ".venv-serve"))


def gates_folder(site: Path) -> Path:
    """The folder of confined servers of `site`, outside what pytest keeps for its own user."""
    return Path(tempfile.gettempdir()) / f"lockgate-gates-{bytes_sha256(bytes(site))[:16]}"


def make_settings(site: Path, run: str, *overrides: str, gates: str = "flights") -> ReleaseSettings:
    """The settings that `lockgate release run=RUN` has, for a site in the folder `site`."""
    config = compose(
        "release",
        [
            f"gates={gates}",
            f"run={run}",
            f"site.root={site}",
            f"site.serving_env={serving_env()}",
            f"site.mlflow_uri=sqlite:///{site}/mlflow.db",
            f"site.paths.gates={gates_folder(site)}",
            f"ephemeral.user={confined.USER}",
            "sign_as=''",
            *(QUICK if gates == "flights" else []),
            *overrides,
        ],
    )
    return release_settings(config)


def deploy(site: Path, model: str, version: int) -> None:
    """Enter in the ledger that `version` is in production, as a rollout does at its end."""
    about = {"model": model, "version": version, "digest": "0" * 64, "previous": None}
    Journal(site / "journal").enter("deploy", f"test-{model}-{version}", **about)


def write_dataset(data_root: Path, rows: int = 3000, days: int = 30, seed: int = 0) -> Path:
    """A flights dataset of two features, published under its digest."""
    random = np.random.default_rng(seed)
    staged = data_root / "flights/staged"
    staged.mkdir(parents=True)
    transform = TabularTransform(
        (
            Category("carrier", "BYTES", ("AA", "UA"), nullable=False),
            Number("distance", "FP32", -50.0, 50.0, 0.0, 1.0, nullable=False),
        ),
        Target("late", "binary", "late_probability"),
        group="day",
    )
    (staged / "transform.json").write_text(transform.to_json())
    for split in ("train", "holdout"):
        distance = random.normal(0, 1.5, rows).astype(np.float32)
        late = random.random(rows) < 1 / (1 + np.exp(-distance))
        day = [date(2013, 1, 1) + timedelta(int(n)) for n in random.integers(0, days, rows)]
        carriers = random.choice(["AA", "UA", "ZZ"], rows).tolist()
        columns = {"carrier": carriers, "distance": distance, "day": day}
        columns["late"] = late.astype(np.int8)
        pq.write_table(pa.table(columns), staged / f"{split}.parquet")
    published = data_root / "flights" / tree_digest(staged)[:12]
    return staged.rename(published)


CONFIG = """name: "{model}"
backend: "python"
max_batch_size: 64
input [
  {{ name: "carrier" data_type: TYPE_STRING dims: [ 1 ] }},
  {{ name: "distance" data_type: TYPE_FP32 dims: [ 1 ] }}
]
output [ {{ name: "late_probability" data_type: TYPE_FP32 dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
dynamic_batching {{ preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 100 }}
"""

MODEL = """import time
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        time.sleep({sleep})
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "distance").as_numpy()
            y = (1 / (1 + np.exp(-(x * {slope})))).astype(np.float32)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("late_probability", y)]))
        return answers
"""

INPUTS = [
    {"name": "carrier", "dtype": "BYTES", "shape": [-1, 1]},
    {"name": "distance", "dtype": "FP32", "shape": [-1, 1]},
]
OUTPUTS = [{"name": "late_probability", "dtype": "FP32", "shape": [-1, 1]}]


def golden(slope: float) -> list[dict]:
    def tensor(dtype: str, data: list) -> dict:
        return {"dtype": dtype, "shape": [len(data), 1], "data": data}

    rows = [[-2.0], [-1.0], [0.0], [1.0], [2.0], [3.0, -3.0], [0.5], [0.25]]
    return [
        {
            "inputs": {
                "distance": tensor("FP32", row),
                "carrier": tensor("BYTES", ["AA"] * len(row)),
            },
            "outputs": {
                "late_probability": tensor(
                    "FP32", [float(1 / (1 + np.exp(-x * slope))) for x in row]
                )
            },
            "atol": 1e-6,
            "rtol": 1e-5,
        }
        for row in rows
    ]


def write_candidate(
    runs: Path,
    dataset: Path,
    *,
    run: str = "tiny-run",
    slope: float = 1.0,
    served_slope: float | None = None,
    sleep: float = 0.0,
    model: str = "flights",
    lineage: dict[str, object] | None = None,
    **changes: object,
) -> Path:
    """Write `runs/RUN/candidate`; `served_slope` makes it answer otherwise than its golden file."""
    folder = runs / run / "candidate"
    version = folder / "version"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG.format(model=model))
    served = slope if served_slope is None else served_slope
    (version / "model.py").write_text(MODEL.format(slope=served, sleep=sleep))
    (version / "model.onnx").write_bytes(b"\x08\x07 no network in here")
    (version / "transform.json").write_bytes((dataset / "transform.json").read_bytes())
    (folder / "golden.json").write_text(json.dumps(golden(slope)))
    (folder / "reference.json").write_text("{}\n")
    content = {
        "model": model,
        "task": "flights",
        "lineage": {
            "run": run,
            "spec_digest": "1" * 64,
            "source_digest": "2" * 64,
            "dataset": {"name": "flights", "digest": tree_digest(dataset), "path": str(dataset)},
            **(lineage or {}),
        },
        "transform_digest": file_sha256(version / "transform.json"),
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "metrics": {"auc": 0.7},
        "requires": {"triton": ">=2.51", "numpy": "<2", "python": "3.11"},
        "code": ["model.py"],
        **changes,
    }
    (folder / "candidate.json").write_text(json.dumps(content))
    return folder
