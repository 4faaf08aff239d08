"""An onnxruntime session as every side of Lockgate opens it."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def open_session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open an ONNX model on the CPU with `threads` threads.

    One thread is the default: a server has instances side by side, and answers must not wait for
    each other. Spinning is off, because idle instances would burn the cores that others need.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
