"""The recipe: what decides a dataset's bytes, and nothing of the other kinds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from hpc.data.arrays import ArraysDataset
from hpc.data.labelled_text import LabelledTextDataset
from hpc.data.recipe import recipe_digest
from hpc.data.source import FileSource, SourceFile
from hpc.data.split import SplitSpec
from tests.datasets import flights_config, webster_config

FRACTIONS = {"train": 0.8, "validation": 0.1, "holdout": 0.1}
SOURCES = {"dictionary": SourceFile("x", "0" * 64, 3)}
REPO = Path(__file__).resolve().parents[3]


def folders(files: tuple[Path, ...]) -> set[str]:
    return {file.resolve().relative_to(REPO).parent.as_posix() for file in files}


def test_a_kinds_code_is_its_own_folder_and_what_it_uses() -> None:
    text, tabular = webster_config(Path("x")).code(), flights_config(Path("/x")).code()
    assert folders(text) == {"hpc/data", "hpc/data/text"}
    assert folders(tabular) == {
        "hpc/data", "hpc/data/tabular", "serving/artifact", "serving/runtime",
    }  # fmt: skip
    assert all(file.is_file() for file in (*text, *tabular))
    used = {file.name for file in tabular}
    assert {"features.py", "tabular_transform.py", "tables.py", "split.py", "query.py"} <= used
    assert not {"triton_model.py", "text_model.py", "command.py", "publish.py"} & used


def test_every_module_that_a_kind_imports_is_in_its_code() -> None:
    """Of this package: what prepares and publishes decides no bytes, and is left out."""
    core = {"dataset", "lineage", "prepare", "publish", "recipe", "refusal", "command"}
    arrays = ArraysDataset("a", {"_target_": "x.Y"}, ("x",), ("y",), SplitSpec(FRACTIONS))
    texts = LabelledTextDataset(
        "t", FileSource({"rows": "x.csv"}), "text", "label", 9, SplitSpec(FRACTIONS), vocab_size=300
    )
    for config, kind in (
        (webster_config(Path("x")), "text"),
        (flights_config(Path("/x")), "tabular"),
        (arrays, "arrays"),
        (texts, "labelled_text"),
    ):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"import sys, hpc.data.{kind}.build; "
                "print(*[m.__file__ for n, m in sys.modules.items() if n.startswith('hpc.data.')])",
            ],
            capture_output=True,
            text=True,
            check=True,
            cwd=REPO,
        )
        code = {file.resolve() for file in config.code()}
        for name in done.stdout.split():
            path = Path(name).resolve()
            assert path in code or path.stem in core, f"{path} is not in the code of {kind}"


def test_settings_and_contents_count_and_places_do_not(tmp_path: Path) -> None:
    one = webster_config(Path("a.dz"))
    digest = recipe_digest(one, SOURCES)
    assert recipe_digest(webster_config(Path("elsewhere/b.dz")), SOURCES) == digest
    assert recipe_digest(replace(one, vocab_size=401), SOURCES) != digest
    other = {"dictionary": replace(SOURCES["dictionary"], sha256="1" * 64)}
    assert recipe_digest(one, other) != digest


def test_libraries_count(monkeypatch) -> None:
    one = webster_config(Path("a.dz"))
    digest = recipe_digest(one, SOURCES)
    monkeypatch.setattr("hpc.data.recipe.package_version", lambda name: f"{name} 0")
    assert recipe_digest(one, SOURCES) != digest
