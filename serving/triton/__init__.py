"""NVIDIA Triton: start a server, write its model configs, call it by gRPC and HTTP.

Imports serving.artifact and conf.errors only; `install_stub` and `TritonServer` need no library but
the standard one.
"""

from serving.triton.server import (
    CONTROL_HEADER,
    RESTRICTED,
    UNCARRIABLE,
    TritonNotInstalled,
    TritonServer,
    install_stub,
)

__all__ = [
    "CONTROL_HEADER",
    "RESTRICTED",
    "UNCARRIABLE",
    "TritonNotInstalled",
    "TritonServer",
    "install_stub",
]
