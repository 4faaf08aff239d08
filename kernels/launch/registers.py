"""Rows that stay in registers: 16-bit values kept in pairs, and widened anew for each use.

A kernel that reduces a row and then transforms it needs every value twice. Compilers share the
conversion to fp32 between both uses, which keeps twice the registers alive across the reduction and
spills where a row just fits. Both functions here give the same numbers as `x.to(ACC)` in a form
that is not shared; which one the compiler leaves alone differs by kernel and was measured by
compiling (kernels.analysis.tune).
"""

import triton
import triton.language as tl


@triton.jit
def widened(x, zero, ACC: tl.constexpr):
    """x in ACC once more. zero: an int32 that is 0, but not to the compiler: `n >> 31`, n > 0."""
    if x.dtype == tl.bfloat16 or x.dtype == tl.float16:
        x = (x.to(tl.uint16, bitcast=True) ^ zero.to(tl.uint16)).to(x.dtype, bitcast=True)
    return x.to(ACC)


@triton.jit
def widened_by_shift(x, zero, ACC: tl.constexpr):
    """The same with one instruction less for bf16, whose bits are the upper half of fp32's."""
    if x.dtype == tl.bfloat16 and tl.float32 == ACC:
        return (x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        return widened(x, zero, ACC)


@triton.jit
def by_vector(x, VEC: tl.constexpr):
    """x (BLOCK,) as (BLOCK / VEC, VEC): each thread's vectors, to be summed without the others."""
    return tl.reshape(x, (x.shape[0] // VEC, VEC))
