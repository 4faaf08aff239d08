"""Triton's interpreter with the rounding of a GPU, and a meter of programs and bytes.

`install()` (before the first kernel runs, TRITON_INTERPRET=1 set before Triton is imported) makes
the interpreter round fp32 to bf16 to nearest even as a GPU does (it truncates), widen bf16 exactly,
and treat float arguments as fp32 scalars. It patches private parts of Triton, of the version that
`kernels.backend` names.

`with Meter() as meter:` counts the programs that ran and the bytes they loaded and stored, by
argument name, and can run the grid in another order.
"""

import inspect
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import product
from types import SimpleNamespace
from unittest import mock
from warnings import catch_warnings

import numpy as np
import triton
import triton.language as tl
from triton.runtime import interpreter

from kernels.backend import TRITON_VERSION as SUPPORTED
from kernels.backend import KernelError, interpreting

SECTOR = 32  # bytes that a GPU's memory delivers at least

Order = Callable[[list[tuple[int, int, int]]], Iterable[tuple[int, int, int]]]


def round_to_bf16(x: np.ndarray) -> np.ndarray:
    """fp32 to the bits of bf16, to nearest even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded).reshape(np.shape(x))


def widen_bf16(bits: np.ndarray) -> np.ndarray:
    """The bits of bf16 to fp32."""
    return (bits.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def install() -> None:
    """Patch the interpreter for the rest of the process; a second call changes nothing.

    Raises KernelError when Triton was imported without TRITON_INTERPRET=1.
    """
    if not interpreting():
        raise KernelError("set TRITON_INTERPRET=1 before Triton is imported")
    if not triton.__version__.startswith(SUPPORTED):
        raise KernelError(f"this interpreter is Triton {triton.__version__}, not {SUPPORTED}x")
    builder = interpreter.InterpreterBuilder
    if builder.cast_impl.__module__ == __name__:
        return
    stock_cast, stock_convert = builder.cast_impl, interpreter._implicit_cvt

    def cast_impl(self, source, kind):
        have, want = source.dtype.scalar, kind.scalar
        if have == tl.float32 and want == tl.bfloat16:
            return interpreter.TensorHandle(round_to_bf16(source.data), want)
        if have == tl.bfloat16 and want != tl.bfloat16:
            source = interpreter.TensorHandle(widen_bf16(source.data), tl.float32)
        return (
            source if want == tl.float32 == source.dtype.scalar else stock_cast(self, source, kind)
        )

    def implicit_cvt(argument):
        if isinstance(argument, float):
            kind = tl.float32
            return tl.tensor(interpreter.TensorHandle(np.array([argument], np.float32), kind), kind)
        return stock_convert(argument)

    stock_splat = builder.create_splat

    def create_splat(self, kind, value):
        if value.data.dtype == bool:  # stock makes integers of a comparison's result
            value = interpreter.TensorHandle(value.data, tl.int1)
        return stock_splat(self, kind, value)

    builder.create_splat = create_splat
    builder.cast_impl = cast_impl
    interpreter._implicit_cvt = implicit_cvt
    _patch_once()
    interpreter.GridExecutor.__call__ = _run_grid


def _patch_once() -> None:
    """Patch the language once a process, which is twice as fast: Triton patches all of it anew
    for every helper that a kernel calls, and leaves it so."""
    interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
    interpreter._patch_lang = lambda _: SimpleNamespace(restore=lambda: None)


_orders: list[Order] = []
_meters: list["Meter"] = []


def _run_grid(self, *tensors, **options):
    """GridExecutor.__call__ for CPU tensors, in the order of the innermost meter."""
    known = inspect.getfullargspec(self.fn).args
    options = {name: value for name, value in options.items() if name in known}
    given = inspect.getcallargs(self.fn, *tensors, **options)
    ranges = [
        (t.data_ptr(), t.data_ptr() + t.untyped_storage().nbytes(), name)
        for name, t in given.items()
        if hasattr(t, "data_ptr")
    ]
    arguments = {
        name: value if name in self.constexprs else interpreter._implicit_cvt(value)
        for name, value in given.items()
    }
    grid = (*self.grid, 1, 1)[:3]
    for meter in _meters:
        meter.ranges = ranges
    interpreter.interpreter_builder.set_grid_dim(*grid)
    places = list(product(range(grid[0]), range(grid[1]), range(grid[2])))
    for place in _orders[-1](places) if _orders else places:
        interpreter.interpreter_builder.set_grid_idx(*place)
        with (
            np.errstate(all="ignore"),
            catch_warnings(action="ignore"),
        ):  # NaN and infinity are data here
            self.fn(**arguments)
        for meter in _meters:
            meter.programs[self.fn.__name__] += 1
            meter._sectors.clear()


class Meter:
    """Counter of the programs and bytes of interpreted kernels while it is entered.

    programs: their number, by kernel. loaded, stored: bytes, by argument name. order: of a
    launch's programs (default: as they come). near_bytes: a cache that every program
    has for itself, of sectors of 32 bytes, the least recently used leaving first; what is loaded
    from there counts in `near` instead of `loaded`. Without one, every load counts in `loaded`.
    """

    def __init__(self, order: Order = list, near_bytes: int = 0):
        self.order = order
        self.near: Counter[str] = Counter()
        self._sectors: OrderedDict[int, None] = OrderedDict()
        self._capacity = near_bytes // SECTOR
        self.programs: Counter[str] = Counter()
        self.loaded: Counter[str] = Counter()
        self.stored: Counter[str] = Counter()
        self.ranges: list[tuple[int, int, str]] = []
        self._stack = ExitStack()

    def __enter__(self) -> "Meter":
        builder = interpreter.InterpreterBuilder
        load, store = builder.create_masked_load, builder.create_masked_store

        def create_masked_load(own, pointers, mask, *rest):
            self._count(self.loaded, pointers, mask)
            return load(own, pointers, mask, *rest)

        def create_masked_store(own, pointers, value, mask, *rest):
            self._count(self.stored, pointers, mask)
            return store(own, pointers, value, mask, *rest)

        for patched in (create_masked_load, create_masked_store):
            self._stack.enter_context(mock.patch.object(builder, patched.__name__, patched))
        _orders.append(self.order)
        _meters.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _orders.pop()
        _meters.remove(self)
        self._stack.close()

    def bytes(self, excluded_args: Iterable[str] = ()) -> int:
        """Bytes loaded and stored, without those of the arguments named in `excluded_args`."""
        left = self.loaded + self.stored
        return sum(count for name, count in left.items() if name not in set(excluded_args))

    def _count(self, into: Counter[str], pointers, mask) -> None:
        where = np.broadcast_to(mask.data, pointers.data.shape)
        used = pointers.data[where]
        if used.size:
            width = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
            owner = self._owner(int(used.flat[0]))
            into[owner] += used.size * width
            again = width * self._cached(used) if self._capacity else 0
            if into is self.loaded:
                self.near[owner] += again
                into[owner] -= again

    def _cached(self, addresses: np.ndarray) -> int:
        """Number of cached `addresses`; afterwards all are cached, the latest last."""
        cached = 0
        for sector, count in zip(*np.unique(addresses // SECTOR, return_counts=True), strict=True):
            if sector in self._sectors:
                cached += int(count)
                self._sectors.move_to_end(sector)
            self._sectors[sector] = None
        while len(self._sectors) > self._capacity:
            self._sectors.popitem(last=False)
        return cached

    def _owner(self, address: int) -> str:
        holders = [entry for entry in self.ranges if entry[0] <= address < entry[1]]
        if not holders:
            raise KernelError(f"a kernel reached address {address:#x} outside its arguments")
        # of views into one buffer the one that begins last, of stand-ins the one named first
        return max(holders, key=lambda entry: entry[0])[2]
