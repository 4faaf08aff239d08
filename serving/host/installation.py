"""The files of this checkout that a serving host needs, to be root's below its etc/host.

A host runs them with the serving environment's own python, isolated from everything else:

    python -I -B ROOT/etc/host ROOT command

where ROOT/etc/host.json has the settings of `serving.host.home`.
"""

from __future__ import annotations

from pathlib import Path

_REPO = Path(__file__).resolve().parents[2]

_FOLDERS = ("serving/host",)
_FILES = (
    "conf/__init__.py",
    "conf/errors.py",
    "conf/names.py",
    "conf/schema.py",
    "serving/__init__.py",
    "serving/artifact/__init__.py",
    "serving/artifact/digest.py",
    "serving/artifact/durable.py",
    "serving/artifact/golden.py",
    "serving/artifact/tensors.py",
    "serving/artifact/verify.py",
    "serving/triton/__init__.py",
    "serving/triton/grpc_client.py",
    "serving/triton/http_client.py",
    "serving/triton/kserve.py",
    "serving/triton/model_config.py",
    "serving/triton/process_memory.py",
    "serving/triton/server.py",
)


def host_files() -> dict[str, str]:
    """The text of every file by its path below etc/host."""
    names = [*_FILES]
    for folder in _FOLDERS:
        found = sorted((_REPO / folder).glob("*.py"))
        names += [f"{folder}/{path.name}" for path in found if path.name != "__main__.py"]
    texts = {name: (_REPO / name).read_text(encoding="utf-8") for name in names}
    # A folder that Python is given to run starts with this file.
    texts["__main__.py"] = (_REPO / "serving/host/__main__.py").read_text(encoding="utf-8")
    return texts
