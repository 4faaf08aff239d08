"""What the compiler makes of every shipped setting, whatever the options and the 16-bit type: no
spills, accesses of at least 128 bits, no atomics."""

from concurrent.futures import ProcessPoolExecutor
from itertools import product

import pytest
import torch

from kernels.analysis.cases import WORKLOADS
from kernels.analysis.compiler_facts import CompilerFacts, compiler_facts
from kernels.analysis.fake_driver import FakeDriver
from kernels.analysis.tune import compile_candidate
from kernels.launch.config import lookup_config

NVIDIA = ("sm_80", "sm_90", "sm_100")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
CASES = list(product(NVIDIA, DTYPES, WORKLOADS))


def shipped(arch: str, dtype: str, name: str) -> list[tuple[int, list[CompilerFacts]]]:
    """(size, facts of one variant's launches) for every shipped size and every variant."""
    return [
        (size, found)
        for size in WORKLOADS[name].sizes
        for found in compile_candidate(name, arch, DTYPES[dtype], size, None)
    ]


@pytest.fixture(scope="module")
def compiled():
    """Everything, compiled by as many processes as there are cores."""
    with ProcessPoolExecutor() as pool:
        yield dict(zip(CASES, pool.map(shipped, *zip(*CASES, strict=True)), strict=True))


@pytest.mark.parametrize(("arch", "dtype", "name"), CASES)
@pytest.mark.timeout(900)
def test_shipped_settings(arch, dtype, name, compiled):
    work = WORKLOADS[name]
    cases = compiled[arch, dtype, name]
    assert len(cases) == len(work.sizes) * (1 + len(work.variants))
    for size, found in cases:
        assert found
        for fact in found:
            assert fact.spills == 0, (size, fact)
            assert fact.atomics == 0, (size, fact)
            assert max(fact.hot_loads) >= 128, (size, fact)
        narrow = sum(fact.narrow for fact in found)
        rows = lookup_config(work.kernel, arch, DTYPES[dtype].itemsize, size).rows
        assert narrow <= work.narrow * rows, (size, found)


@pytest.mark.parametrize("name", list(WORKLOADS))
@pytest.mark.parametrize("size", [1, 17, 1000])
def test_any_size_compiles(name, size):
    """Triton makes a constant of an argument that is 1, and no vectors of rows that are odd."""
    if name.startswith("rope"):
        size = min(2 * size, 250)
    with FakeDriver("sm_90") as gpu:
        for rows in (1, 3):
            WORKLOADS[name].run(rows, size, torch.bfloat16, "meta")
    assert all(compiler_facts(launched.kernel).registers for launched in gpu.launches)
    assert gpu.launches


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_amd_compiles(name):
    work = WORKLOADS[name]
    for size in work.sizes[::5]:
        with FakeDriver("gfx942") as gpu:
            work.run(1000, size, torch.bfloat16, "meta")
        assert gpu.launches
        for launched in gpu.launches:
            assert "hsaco" in launched.kernel.asm
            assert compiler_facts(launched.kernel).spills == 0
