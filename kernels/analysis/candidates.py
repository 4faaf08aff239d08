"""Candidates for a launch config, the most wanted first: enough bytes in flight per thread, then as
few warps as wait for each other at a barrier, clusters last."""

from collections.abc import Iterator

import triton

from kernels.launch.config import LaunchConfig


def registers_of_program(arch: str) -> tuple[int, int]:
    """(lanes of a warp, most warps of a program)."""
    return (64, 16) if arch == "gfx942" else (32, 32)


def cluster_sizes(arch: str, wanted: bool) -> tuple[int, ...]:
    """Thread blocks that can share a row; none where there are no clusters."""
    return (2, 4, 8) if wanted and arch in ("sm_90", "sm_100") else ()


def whole_rows(arch: str, dtype: str, size: int, clusters: bool) -> Iterator[LaunchConfig]:
    """A row (or several short ones) in the registers of one program."""
    per_thread = (16, 8, 32)
    block = triton.next_power_of_2(size)
    rows = max(1, 2048 // block)
    lanes, most = registers_of_program(arch)
    seen = set()
    for elements in per_thread:
        warps = min(most, max(1, block * rows // (lanes * elements)))
        if warps not in seen:
            seen.add(warps)
            yield LaunchConfig(block, rows, warps=warps)
    for ctas in cluster_sizes(arch, clusters):
        for elements in per_thread:
            warps = min(most, max(4, block // (lanes * elements * ctas)))
            yield LaunchConfig(block, 1, warps=warps, ctas=ctas)


def rows_with_sums(arch: str, dtype: str, size: int, clusters: bool) -> Iterator[LaunchConfig]:
    """A whole row beside its partial sums, or a row that is read twice, in tiles."""
    yield from whole_rows(arch, dtype, size, clusters)
    for tile, warps in ((8192, 32), (4096, 16), (4096, 32), (2048, 16), (2048, 8)):
        yield LaunchConfig(tile, warps=warps if arch != "gfx942" else warps // 2, reads=2)


def rows_in_vectors(arch: str, dtype: str, size: int, clusters: bool) -> Iterator[LaunchConfig]:
    """A row as a few vectors of 128 bits in every thread, or a row that is read twice, in tiles."""
    vector = 8 if dtype == "bf16" else 4
    lanes, most = registers_of_program(arch)
    for ctas in (1, *cluster_sizes(arch, clusters)):
        for parts in (4, 8):
            warps = max(1, triton.next_power_of_2(size) // (parts * vector * lanes * ctas))
            if warps <= most:
                yield LaunchConfig(vector * lanes * warps * ctas, warps=warps, ctas=ctas)
    yield from twice_read_tiles(arch, dtype, size, clusters)


def halves(arch: str, dtype: str, size: int, clusters: bool) -> Iterator[LaunchConfig]:
    """Several tokens' halves of a head in one tile."""
    warps = 2 if arch == "gfx942" else 4
    half = triton.next_power_of_2(size // 2)
    for tile in (1024, 2048, 512):
        yield LaunchConfig(half, max(1, tile // half), warps=warps)
        yield LaunchConfig(half, max(1, tile // half), warps=max(1, warps // 2))


def flat_tiles(arch: str, dtype: str, size: int, clusters: bool) -> Iterator[LaunchConfig]:
    """Tiles of a tensor without reductions."""
    for block in (2048, 1024):
        yield LaunchConfig(block, warps=2 if arch == "gfx942" else 4)


def once_read_tiles(arch: str, dtype: str, size: int, clusters: bool) -> Iterator[LaunchConfig]:
    """A row tile by tile."""
    yield from _tiles(arch, reads=1)


def twice_read_tiles(arch: str, dtype: str, size: int, clusters: bool) -> Iterator[LaunchConfig]:
    """A row tile by tile, twice."""
    yield from _tiles(arch, reads=2)


def _tiles(arch: str, reads: int) -> Iterator[LaunchConfig]:
    for block, warps in ((4096, 8), (8192, 16), (2048, 4), (2048, 8)):
        yield LaunchConfig(block, warps=warps // 2 if arch == "gfx942" else warps, reads=reads)
