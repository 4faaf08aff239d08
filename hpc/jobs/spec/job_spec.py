"""JobSpec: everything that decides what a run computes, frozen at submit.

The job reads only this. Its digest covers the resolved config, the source, the dataset and the
environment, but neither the time nor the run's name: the same work has the same digest.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf import ConfigError
from conf.names import printable
from hpc.jobs.errors import SpecChanged
from hpc.jobs.regular_file import read_regular_file
from hpc.jobs.spec.ancestry import InitialWeights, Parent
from serving.artifact.digest import bytes_sha256, canonical_json
from serving.artifact.durable import replace_file
from serving.artifact.lineage import DatasetRef

FORMAT, WITH_ANCESTRY, WITH_CONTAINER = 2, 3, 4
"""Of a spec; the second has a parent or initial weights, the third a container image. Code that
reads only the lower ones refuses it."""
LIMIT_BYTES = 1 << 18
"""Size of a spec; the safe loader of YAML takes seconds for more."""
HEADING = "# Frozen at submit. The job refuses this file if its digest has moved.\n"


@dataclass(frozen=True)
class Source:
    """The code that a run uses, Lockgate's or a project's: `digest` is of its files."""

    digest: str
    commit: str | None  # HEAD at submit; null where there was no git
    dirty: bool  # edits that were not committed are in the snapshot, and in *.diff of the run
    version: str | None = None  # of the installed package; null in a checkout and for a project


@dataclass(frozen=True)
class Environment:
    """The interpreter and the installed packages; the list is in environment.txt of the run."""

    python: str
    digest: str


@dataclass(frozen=True)
class ContainerImage:
    """The container image in which a run's ranks work."""

    image: str
    """As in cluster.container."""
    runtime: str
    """As in cluster.container_runtime."""
    digest: str
    """sha256 of the file, of the folder's entries, or of the registry's manifest."""


@dataclass(frozen=True)
class JobSpec:
    """One run, resolved. `plain` is the composed training config as plain values."""

    task: str
    plain: Mapping[str, Any]
    source: Source
    project: Source | None  # null for a run of Lockgate's own
    dataset: DatasetRef
    environment: Environment
    parent: Parent | None = None
    """Of a run that `lockgate resume` made."""
    initial: InitialWeights | None = None
    """Of a run with init_from."""
    container: ContainerImage | None = None
    """Of a run with cluster.container."""

    @cached_property
    def config(self) -> DictConfig:
        """`plain` as a config that can only be read, by keys that exist.

        Made when it is used: of a sweep's trials nobody uses it before the job does.
        """
        node = OmegaConf.create(dict(self.plain))
        OmegaConf.set_struct(node, True)
        OmegaConf.set_readonly(node, True)
        return node

    @cached_property
    def digest(self) -> str:
        """The sha256 of the canonical form. Raises `ConfigError` for a value that is no JSON."""
        return _digest(self.content())

    @property
    def origin(self) -> str:
        """The checkpoint of another run that this one began with, in words; empty for none."""
        if self.parent is not None:
            return f"goes on from {self.parent.words}"
        return f"began with the weights of {self.initial.words}" if self.initial else ""

    def content(self) -> dict[str, Any]:
        """The spec as plain values, secrets as references."""
        optional = (
            *(("parent", self.parent), ("initial", self.initial)),
            ("container", self.container),
        )
        more = {key: asdict(one) for key, one in optional if one is not None}
        with_more = WITH_CONTAINER if self.container else WITH_ANCESTRY
        return {
            "format": with_more if more else FORMAT,
            "task": self.task,
            "config": copy.deepcopy(dict(self.plain)),
            "source": asdict(self.source),
            "project": asdict(self.project) if self.project else None,
            "dataset": asdict(self.dataset),
            "environment": asdict(self.environment),
            **more,
        }

    def text(self) -> str:
        """The content of spec.yaml."""
        document = {"digest": self.digest, "spec": self.content()}
        # Escaped to ASCII: YAML folds line breaks that only Unicode has, such as U+0085.
        return HEADING + yaml.dump(document, Dumper=_Dumper, sort_keys=True)

    def write(self, path: Path) -> None:
        """Write the spec, readable by all and writable by nobody. Raises `ConfigError`."""
        text = self.text()
        if len(text) > LIMIT_BYTES:
            raise ConfigError(
                f"the config is {len(text) >> 10} KiB as YAML, and {LIMIT_BYTES >> 10} KiB are the "
                "most: what is larger belongs into a file of the project or into the dataset"
            )
        replace_file(path, text, mode=0o444)


# libyaml's, ten times as fast, where PyYAML was built with it: a sweep writes many specs.
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class PlainLoader(yaml.SafeLoader):
    """YAML of plain values without aliases, a few of which can stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Called by the loader for each value. Raises `yaml.YAMLError` for an alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name), and a frozen spec has none")
        return super().compose_node(parent, index)


NOT_A_SPEC = (
    *(OSError, yaml.YAMLError, OmegaConfBaseException, ConfigError),
    *(AttributeError, KeyError, TypeError, ValueError),
)
"""Errors of what stands in a file that is no spec, or no longer one."""


def read_spec(path: Path, digest: str | None = None) -> JobSpec:
    """Read a spec and check that it still is what was frozen.

    `digest` is the one that the submitter passed on; without it the file is checked against itself.
    Raises `SpecChanged` for a file that is missing, is no spec, or whose digest differs.
    """
    try:
        document = yaml.load(read_regular_file(path, LIMIT_BYTES), Loader=PlainLoader)
        content = document["spec"]
        recorded = document["digest"]
        actual = _digest(content)
        if content["format"] not in (FORMAT, WITH_ANCESTRY, WITH_CONTAINER):
            raise SpecChanged(
                f"{path}: spec format {content['format']}, this code reads {FORMAT} to "
                f"{WITH_CONTAINER}."
            )
        spec = _from_content(content)
    except FileNotFoundError as error:
        raise SpecChanged(f"{path}: there is no spec; this is not the folder of a run.") from error
    except RecursionError as error:
        raise SpecChanged(f"{path} is not a spec: it is nested too deep.") from error
    except NOT_A_SPEC as error:
        reason = printable(" ".join(str(error).split()))[:200]
        raise SpecChanged(f"{path} is not a spec: {reason}. Submit the run again.") from error
    expected = digest or recorded
    if actual != expected:
        raise SpecChanged(
            f"{path} was changed after submit: its digest is {actual[:12]}, frozen was "
            f"{expected[:12]}. Nothing was run; submit again with the change as an override."
        )
    return spec


def _from_content(content: dict[str, Any]) -> JobSpec:
    if not isinstance(content["task"], str):
        raise TypeError("spec.task is no text")
    spec = JobSpec(
        task=content["task"],
        plain=content["config"],
        source=Source(**content["source"]),
        project=Source(**content["project"]) if content["project"] else None,
        dataset=DatasetRef(**content["dataset"]),
        environment=Environment(**content["environment"]),
        parent=Parent(**content["parent"]) if "parent" in content else None,
        initial=InitialWeights(**content["initial"]) if "initial" in content else None,
        container=ContainerImage(**content["container"]) if "container" in content else None,
    )
    spec.config  # noqa: B018  # what is no config fails here, where the file is known
    return spec


def _digest(content: dict[str, Any]) -> str:
    try:
        return bytes_sha256(canonical_json(content))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the config holds a value that cannot be frozen: {error}") from error
