"""Every shipped launch config as compiled, whatever the options and the 16-bit type: no spills,
accesses of at least 128 bits, no atomics."""

from concurrent.futures import ProcessPoolExecutor
from itertools import product

import pytest
import torch

from kernels.analysis.cases import WORKLOADS
from kernels.analysis.compiler_facts import CompilerFacts, compiler_facts, occupancy
from kernels.analysis.fake_driver import FakeDriver
from kernels.analysis.tune import compile_candidate
from kernels.launch.config import lookup_config

NVIDIA = ("sm_80", "sm_90", "sm_100")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# One (architecture, dtype) at every size; of some others, one size each: the largest.
IN_DEPTH = ("sm_90", "bf16")
ONE_SIZE = [("sm_80", "bf16"), ("sm_100", "bf16"), ("sm_90", "fp32")]


def cases():
    """(architecture, dtype, workload, sizes) of every test; the rest of the sizes is `full`."""
    for arch, dtype, name in product(NVIDIA, DTYPES, WORKLOADS):
        sizes = WORKLOADS[name].sizes
        marks = () if (arch, dtype) == IN_DEPTH else pytest.mark.full
        yield pytest.param(arch, dtype, name, sizes, marks=marks, id=f"{arch}-{dtype}-{name}")
        if (arch, dtype) in ONE_SIZE:
            one = sizes[-1:]
            yield pytest.param(arch, dtype, name, one, id=f"{arch}-{dtype}-{name}-{one[0]}")


def shipped(
    arch: str, dtype: str, name: str, sizes: tuple[int, ...]
) -> list[tuple[int, list[CompilerFacts]]]:
    """(size, facts of one variant's launches) for each of the sizes and every variant."""
    return [
        (size, found)
        for size in sizes
        for found in compile_candidate(name, arch, DTYPES[dtype], size, None)
    ]


@pytest.fixture(scope="module")
def compiled(request):
    """The selected cases, compiled by as many processes as there are cores."""
    wanted = [
        tuple(item.callspec.params[name] for name in ("arch", "dtype", "name", "sizes"))
        for item in request.session.items
        if getattr(item, "originalname", None) == "test_shipped_configs"
    ]
    with ProcessPoolExecutor() as pool:
        yield dict(zip(wanted, pool.map(shipped, *zip(*wanted, strict=True)), strict=True))


@pytest.mark.parametrize(("arch", "dtype", "name", "sizes"), cases())
@pytest.mark.timeout(900)
def test_shipped_configs(arch, dtype, name, sizes, compiled):
    work = WORKLOADS[name]
    built = compiled[arch, dtype, name, sizes]
    assert len(built) == len(sizes) * (1 + len(work.variants))
    for size, found in built:
        assert found
        for fact in found:
            assert fact.spills == 0, (size, fact)
            assert fact.atomics == 0, (size, fact)
            assert max(fact.hot_loads) >= 128, (size, fact)
        narrow = sum(fact.narrow for fact in found)
        rows = lookup_config(work.kernel, arch, DTYPES[dtype].itemsize, size).rows
        assert narrow <= work.narrow * rows, (size, found)


EXTRA_SIZES = [pytest.param(size, marks=pytest.mark.full) for size in (1, 1000)]


@pytest.mark.parametrize("name", list(WORKLOADS))
@pytest.mark.parametrize("size", [17, *EXTRA_SIZES])
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


@pytest.mark.parametrize(
    ("arch", "registers", "shared", "warps", "blocks"),
    [
        ("sm_90", 42, 0, 2, 21), ("gfx942", 42, 0, 2, 16),  # no more than 8 waves of a SIMD
        ("sm_90", 130, 0, 2, 7), ("gfx942", 130, 0, 2, 6), ("gfx942", 128, 0, 2, 8),
        ("sm_90", 32, 40_000, 4, 5), ("gfx942", 32, 40_000, 4, 1), ("gfx942", 64, 0, 16, 2),
    ],
)  # fmt: skip
def test_blocks_of_a_multiprocessor_by_the_arithmetic_of_its_vendor(
    arch, registers, shared, warps, blocks
):
    assert occupancy(registers, shared, warps, arch) == blocks
