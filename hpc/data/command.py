"""`lockgate data prepare data=NAME [key=value ...] [--json]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conf import ConfigError, compose
from conf.errors import DONE, FAILED, INTERRUPTED, LockgateError
from conf.modes import sharing_new_files
from conf.names import check_name, printable
from conf.plugin import make_plugin
from hpc.data import lineage
from hpc.data.dataset import Dataset
from hpc.data.prepare import prepare
from hpc.data.publish import Published
from hpc.data.refusal import DataRefused


def main(argv: Sequence[str]) -> int:
    """Run the command line after `lockgate data`; returns its exit status."""
    options = _parser().parse_args(argv)
    name, root = "", Path()
    try:
        cfg = compose("data", options.overrides)
        dataset = make_dataset(cfg.data)
        name, root = dataset.name, Path(cfg.site.paths.data)
        with sharing_new_files():
            published = prepare(dataset, root, lambda line: print(f"  {line}", file=sys.stderr))
    except ConfigError as error:
        print(f"lockgate: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except (LockgateError, OSError) as error:
        print(_refusal(name, root, str(error)), file=sys.stderr)
        return error.exit_code if isinstance(error, LockgateError) else FAILED
    except KeyboardInterrupt:
        print(_refusal(name, root, "interrupted."), file=sys.stderr)
        return INTERRUPTED
    print(_as_json(published) if options.json else _as_text(published))
    return DONE


def make_dataset(node: object) -> Dataset:
    """The dataset that the `data` node of a composed config names. Raises `ConfigError`."""
    made = make_plugin(node, "data")
    if not isinstance(made, Dataset):
        kind = type(made)
        raise ConfigError(
            f"data._target_: {kind.__module__}.{kind.__qualname__} is not a dataset; "
            "see hpc.data.dataset.Dataset"
        )
    check_name("data.name", made.name, "lockgate data prepare data=NAME data.name={}")
    return made


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lockgate data", description="Prepare and publish a dataset from its pinned source."
    )
    parser.add_argument("verb", choices=["prepare"], help="what to do")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="data=NAME, and more")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


def _refusal(name: str, root: Path, reason: str) -> str:
    try:
        digest = lineage.read_lineage(lineage.current_dataset(root, name)).digest[:12]
        before = f"The previous dataset {name}@{digest} is unchanged."
    except DataRefused:
        before = "Nothing was published."
    return f"lockgate: dataset {name!r} was not prepared: {reason}\n{before}"


def _as_json(published: Published) -> str:
    result = {
        "name": published.name,
        "state": published.state,
        "path": str(published.path),
        "digest": published.lineage.digest,
        "splits": published.lineage.splits,
    }
    return json.dumps(result, indent=2)


def _largest_first(split: tuple[str, Mapping[str, Any]]) -> int:
    size = split[1]
    return -int(size.get("rows") or size.get("tokens") or 0)


def _as_text(published: Published) -> str:
    sizes = [
        f"{split} {size['rows']:,} rows" if "rows" in size else f"{split} {size['tokens']:,} tokens"
        for split, size in sorted(published.lineage.splits.items(), key=_largest_first)
        if "rows" in size or "tokens" in size
    ]
    state = "is published" if published.state == "published" else "is unchanged"
    name = f"{published.name}@{published.lineage.digest[:12]}"
    return f"{name} {state}: {', '.join(sizes)}\n{published.path}"
