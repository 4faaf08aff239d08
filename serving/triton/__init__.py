"""NVIDIA Triton: start a server, write its model configs, speak to it by gRPC and HTTP.

Imports serving.artifact only; `install_stub` and `TritonServer` need the standard library alone.
"""

from serving.triton.server import (
    RESTRICTED,
    SECRET_HEADER,
    TritonNotInstalled,
    TritonServer,
    install_stub,
)

__all__ = ["RESTRICTED", "SECRET_HEADER", "TritonNotInstalled", "TritonServer", "install_stub"]
