"""Rows that stay in registers: 16-bit values kept in pairs, and widened anew for each use.

A kernel that reduces a row and then transforms it needs every value twice. Compilers share the
conversion to fp32 between both uses, which keeps twice the registers alive across the reduction and
spills where a row just fits. The functions here give the same numbers as `x.to(ACC)` in a form that
is not shared. They are all of one kind, an equal value that the compiler cannot prove equal:

    opaque_zero         a zero that it does not fold, to be mixed into the bits that are widened
    widened             the bits with that zero, so that each use has a conversion of its own
    widened_by_shift    of bf16 the shift that its conversion is, which is not taken for one
    by_vector           a reshape that keeps each thread's sums apart

Which of them a compiler leaves alone is not promised by anybody. They hold for Triton 3.9 with its
own LLVM and ptxas (kernels.backend.TRITON_VERSION), and tests/kernels/compile/test_registers.py
compiles a row with them and without: it fails once one of them gains nothing, which is the time to
take it out, or is shared all the same, which is the time to find another.
"""

import triton
import triton.language as tl


@triton.jit
def opaque_zero(n):
    """An int32 that is 0, but not to the compiler: the sign of `n`, a length that it cannot see."""
    return n >> 31


@triton.jit
def widened(x, zero, ACC: tl.constexpr):
    """x in ACC once more. zero: an `opaque_zero`."""
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
