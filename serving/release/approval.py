"""`lockgate approve MODEL/N`: a second person's signature for a version, by a key of their own.

Two steps, since an approver cannot write in the store and the store's owner has no approver's key:
`--key` signs and prints the signature, `--attach` puts it beside the version's manifest.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from conf import ConfigError, compose
from conf.errors import DONE, REFUSED
from conf.names import check_name, shown
from serving.artifact import store
from serving.artifact.manifest import Manifest
from serving.artifact.signature import APPROVER, check_signature, sign
from serving.artifact.store import Package
from serving.artifact.verify import MAX_SIGNATURE, ONE_KEY, SIGNATURE, Refused, verify_package


def main(argv: Sequence[str]) -> int:
    """Run the command line after `lockgate approve`; returns its exit status (`conf.errors`).

    Raises LockgateError for a version that is not there, OSError for a store or a file of
    signatures that cannot be read or written.
    """
    options = _parser().parse_intermixed_args(list(argv))
    model, version = _version(options.version)
    paths = compose("site", options.overrides).site.paths
    package = store.get(Path(paths.store), model, version)
    try:
        verify_package(package.path, Path(paths.allowed_signers), model, version)
        if options.key:
            print(_summary(package.manifest), file=sys.stderr)
            sys.stdout.write(sign(package.manifest.to_bytes(), options.key, APPROVER).decode())
            return DONE
        attach_approval(package, _read_signature(options.attach), Path(paths.allowed_signers))
    except Refused as error:
        print(f"lockgate: {model}/{version} was not approved: {error}", file=sys.stderr)
        return REFUSED
    print(f"{model}/{version} is approved", file=sys.stderr)
    return DONE


def attach_approval(package: Package, signature: bytes, allowed_signers: Path) -> None:
    """Put an approver's signature beside the manifest of a version in the store.

    Raises Refused for a signature that is not an allowed approver's of these bytes; the version is
    then as it was.
    """
    data = package.manifest.to_bytes()
    approver = check_signature(data, signature, allowed_signers, APPROVER)
    released = (package.path / SIGNATURE).read_bytes()
    if approver == check_signature(data, released, allowed_signers):
        raise Refused("unapproved", ONE_KEY)
    store.add_approval(package.path, signature)


def _summary(manifest: Manifest) -> str:
    """The facts that an approval vouches for, for the person at the keyboard."""
    gates = ", ".join(f"{gate.name} {gate.verdict}" for gate in manifest.gates)
    metrics = ", ".join(f"{name}={value:.6g}" for name, value in sorted(manifest.metrics.items()))
    return (
        f"{manifest.model}/{manifest.version} of run {manifest.lineage.run}, "
        f"sha256:{manifest.digest}\n"
        f"  created {manifest.created}, expires {manifest.expires}\n"
        f"  metrics: {metrics or 'none'}\n  gates: {gates or 'none'}"
    )


def _version(text: str) -> tuple[str, int]:
    """Model and number in MODEL/N. Raises ConfigError."""
    model, _, number = text.partition("/")
    if not re.fullmatch(r"[1-9][0-9]{0,8}", number):
        raise ConfigError(
            f"{shown(text)} is no version. Type: lockgate approve MODEL/N --key FILE, where N is a "
            "number of a version in the store"
        )
    return check_name("model", model, f"lockgate approve {{}}/{number} --key FILE"), int(number)


def _read_signature(path: Path) -> bytes:
    """The signature in `path`, of standard input for `-`. Raises OSError."""
    if str(path) == "-":
        return sys.stdin.buffer.read(MAX_SIGNATURE + 1)
    with path.open("rb") as file:
        return file.read(MAX_SIGNATURE + 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lockgate approve",
        description="Sign a released version as a second person (site.signing.approvals).",
    )
    parser.add_argument("version", metavar="MODEL/N", help="a version in the store")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in site=box")
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument(
        "--key", type=Path, metavar="FILE", help="sign with this key; prints the signature"
    )
    step.add_argument(
        "--attach", type=Path, metavar="FILE", help="keep this signature in the store; - is stdin"
    )
    return parser
