"""Fake Triton driver: compiles for an architecture without a device and records launches.

Inside `with FakeDriver("sm_90") as gpu:` the launchers of this package accept meta tensors; each
kernel is specialised and compiled exactly as on the device, and `gpu.launches` lists its launches.
This module alone touches Triton's private driver interface (and kernels.analysis.interpreter its
private interpreter); both refuse a Triton that they were not written for.
"""

import re
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from kernels.backend import TRITON_VERSION, KernelError, interpreting

# Shared memory of one thread block (bytes), as the driver would report it.
SHARED = {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448, "gfx942": 65536}


def target(arch: str) -> GPUTarget:
    """Triton's name for an architecture of the launch table."""
    if arch.startswith("sm_"):
        return GPUTarget("cuda", int(arch[3:]), 32)
    return GPUTarget("hip", arch, 64)


@dataclass(frozen=True)
class Launched:
    """One recorded launch."""

    name: str
    grid: tuple[int, int, int]
    warps: int
    ctas: int
    kernel: Any  # triton's CompiledKernel


class FakeDriver:
    """A Triton driver without a device, to be used as a context manager.

    Raises KernelError under the interpreter and with a Triton it was not written for.
    """

    def __init__(self, arch: str):
        if interpreting():
            raise KernelError(
                "TRITON_INTERPRET=1: nothing can be compiled in this process; unset it"
            )
        if not triton.__version__.startswith(TRITON_VERSION):
            raise KernelError(
                f"kernels.analysis.fake_driver is written for Triton {TRITON_VERSION}x, not "
                f"{triton.__version__}; install the version of scripts/lock/train.txt"
            )
        self.arch = arch
        self.launches: list[Launched] = []
        self.utils = self
        self._outer: Any = None

    def __enter__(self) -> "FakeDriver":
        self._outer = driver._active
        driver.set_active(self)
        return self

    def __exit__(self, *_: object) -> None:
        driver._active = self._outer

    # The part of a driver that triton.runtime.jit and triton.compiler call.

    def get_current_device(self) -> int:
        return int(re.sub(r"\D", "", self.arch))  # the JIT keeps one cache of binaries per device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return target(self.arch)

    def get_active_torch_device(self):
        import torch

        return torch.device("meta")

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {
            "max_shared_mem": SHARED[self.arch],
            "multiprocessor_count": 132,
            "max_num_regs": 65536,
            "warpSize": target(self.arch).warp_size,
        }

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple:
        return 1, 1, 0, 0, 1024  # module, function, registers, spills, most threads

    def unload_module(self, module: Any) -> None:
        """Nothing was loaded."""

    def launcher_cls(self, src: Any, metadata: Any):
        def record(g0, g1, g2, *_: Any) -> None:
            gpu = driver._active  # binaries outlive the driver that compiled them
            kernel = next(
                k for k in compiled_kernels(src.fn, gpu) if k.metadata.hash == metadata.hash
            )
            ctas = getattr(metadata, "num_ctas", 1)
            gpu.launches.append(
                Launched(metadata.name, (g0, g1, g2), metadata.num_warps, ctas, kernel)
            )

        return record


def compiled_kernels(fn: Any, gpu: FakeDriver) -> list[Any]:
    """The binaries that `fn` (a triton.jit function) has by now for the driver's architecture."""
    return list(fn.device_caches[gpu.get_current_device()][0].values())
