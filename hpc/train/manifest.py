"""A checkpoint's manifest: written last, so that a folder with one is whole, and checkable.

checkpoints/<step>/            deepspeed/*  random-<rank>.json  model.safetensors  manifest.json
checkpoints/<step>.universal/  deepspeed/*  manifest.json      for other ranks, of the one above
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hpc.jobs.run.elastic import Layout, layout_from
from serving.artifact.digest import canonical_json, file_sha256
from serving.artifact.durable import replace_file, sync_tree

FILE = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class CheckpointManifest:
    """The contents of a checkpoint. `files` maps a relative path to (bytes, sha256)."""

    step: int
    world_size: int
    spec_digest: str
    files: Mapping[str, tuple[int, str]]
    layout: Layout | None = None
    """None for one that was written before layouts were recorded."""
    made_from: str | None = None
    """Of a universal one: sha256 of the manifest of the checkpoint that it was made from."""
    format: int = FORMAT


def seal_checkpoint(
    folder: Path,
    step: int,
    world_size: int,
    spec_digest: str,
    layout: Layout | None = None,
    made_from: str | None = None,
) -> None:
    """Make every file of `folder` durable, and then write its manifest, durably too."""
    sync_tree(folder)
    files = {}
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        files[path.relative_to(folder).as_posix()] = (path.stat().st_size, file_sha256(path))
    manifest = CheckpointManifest(step, world_size, spec_digest, files, layout, made_from)
    replace_file(folder / FILE, canonical_json(asdict(manifest)))


def read_manifest(folder: Path) -> CheckpointManifest:
    """The manifest of `folder`. Raises OSError, ValueError or TypeError where there is none."""
    content = json.loads((folder / FILE).read_text())
    if content.get("format") != FORMAT:
        raise ValueError(f"manifest format {content.get('format')}, this code reads {FORMAT}")
    content["files"] = {name: (size, digest) for name, (size, digest) in content["files"].items()}
    if content.get("layout") is not None:
        content["layout"] = layout_from(content["layout"])
    return CheckpointManifest(**content)


def checkpoint_fault(folder: Path) -> str | None:
    """The fault of the checkpoint in `folder`, in words; None for a good one."""
    try:
        manifest = read_manifest(folder)
        if manifest.step != int(folder.name.partition(".")[0]):
            return f"its manifest is of step {manifest.step}"
        for name, (size, digest) in manifest.files.items():
            path = folder / name
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes, not {size}"
            if file_sha256(path) != digest:
                return f"{name} is not what was written (sha256 differs)"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"it cannot be read: {error}"
    return None
