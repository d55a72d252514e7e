"""Sixteen float32 lanes as one Numba type, and register tiles of them.

A loop left to the auto-vectoriser may or may not become vector code, and may sum in another order on another CPU.
Here the vector is explicit: `v16` is LLVM's `<16 x float>` whatever the width of the hardware (one AVX-512 register,
two AVX2 registers, four NEON registers), so the same operations happen on the same lanes everywhere.

- Lanes: `load`, `store`, `zero`, `keep`, `bit_lanes`, the operators `+ - * /` (a float32 on one side is spread over
  the lanes), `fma`, `sqrt`, `clamp`, `tree_sum`.
- Tiles: `tile(rows, columns)` returns operations on rows x columns vectors that are meant to stay in registers.
  Their loops are unrolled while the intermediate code is built.

No operation checks bounds: offsets are in elements, and the caller answers for them.
"""

import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import PrimitiveModel
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

from tinymlds.kernels import LANES

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INT32 = ir.IntType(32)
_INDEX = types.intp


class V16Type(types.Type):
    """The Numba type of 16 float32 lanes."""

    def __init__(self) -> None:
        super().__init__("v16")


v16 = V16Type()


@register_model(V16Type)
class _V16Model(PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


# ------------------------------------------------------------------ helpers that emit LLVM instructions


def _indices(values: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(_INT32, len(values)), list(values))


def _splat(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, undefined, _indices([0] * LANES))


def _zeros() -> ir.Constant:
    return ir.Constant(_VECTOR, [0.0] * LANES)


def _lanes(builder: Any, value: Any, numba_type: Any) -> Any:
    return value if numba_type is v16 else _splat(builder, value)


def _llvm_call(builder: Any, name: str, arguments: Sequence[Any]) -> Any:
    function_type = ir.FunctionType(_VECTOR, [_VECTOR] * len(arguments))
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.{name}.v16f32")
    return builder.call(function, list(arguments))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


def _load(builder: Any, pointer: Any, vector: Any = _VECTOR) -> Any:
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4)


def _store(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=4)


def _at(builder: Any, offset: Any, stride: Any, count: int) -> Any:
    """offset + stride * count."""
    return builder.add(offset, builder.mul(stride, ir.Constant(offset.type, count)))


def _tree(builder: Any, vectors: list[Any]) -> Any:
    """Sum the lanes of 16 vectors at once: lane i of the result is the sum of the lanes of vector i.

    The order is a fixed binary tree over neighbours: ((0+1)+(2+3))+((4+5)+(6+7)) and so on. At each level the lanes whose
    number has the bit `distance` are taken from the second of two vectors, and their partners in the sum lie that far away.
    """
    distance = 1
    while len(vectors) > 1:
        owner = [i if i & distance == 0 else i + LANES for i in range(LANES)]
        own, partner = _indices(owner), _indices([i ^ distance for i in owner])
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [builder.fadd(builder.shuffle_vector(a, b, own), builder.shuffle_vector(a, b, partner)) for a, b in pairs]
        distance *= 2
    return vectors[0]


# ------------------------------------------------------------------ operators


def _register_operator(python_operator: Callable[..., Any], instruction: str) -> None:
    @infer_global(python_operator)
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and v16 in args and all(a is v16 or a == types.float32 for a in args):
                return signature(v16, *args)
            return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = (_lanes(builder, value, kind) for value, kind in zip(args, sig.args, strict=True))
        return getattr(builder, instruction)(left, right)

    for operands in ((v16, v16), (v16, types.float32), (types.float32, v16)):
        lower_builtin(python_operator, *operands)(lower)


_register_operator(operator.add, "fadd")
_register_operator(operator.sub, "fsub")
_register_operator(operator.mul, "fmul")
_register_operator(operator.truediv, "fdiv")


# ------------------------------------------------------------------ lanes


@intrinsic
def fma(typingctx, x, y, z):  # type: ignore[no-untyped-def]
    """x * y + z with a single rounding, in every lane."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        lanes = [_lanes(builder, value, kind) for value, kind in zip(args, sig.args, strict=True)]
        return _llvm_call(builder, "fma", lanes)

    return signature(v16, x, y, z), codegen


@intrinsic
def sqrt(typingctx, x):  # type: ignore[no-untyped-def]
    """IEEE square root of every lane."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return _llvm_call(builder, "sqrt", args)

    return v16(v16), codegen


@intrinsic
def clamp(typingctx, x, low, high):  # type: ignore[no-untyped-def]
    """Limit every lane to [low, high]; a NaN stays a NaN, so that divergence is seen and not hidden."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        value, lower, upper = (_lanes(builder, a, kind) for a, kind in zip(args, sig.args, strict=True))
        value = builder.select(builder.fcmp_ordered("<", value, lower), lower, value)
        return builder.select(builder.fcmp_ordered(">", value, upper), upper, value)

    return signature(v16, x, low, high), codegen


@intrinsic
def unless_negative(typingctx, u, x):  # type: ignore[no-untyped-def]
    """+0.0 in the lanes where u <= 0, x in the others (also where u is a NaN)."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.select(builder.fcmp_ordered("<=", args[0], _zeros()), _zeros(), args[1])

    return v16(v16, v16), codegen


@intrinsic
def zero(typingctx):  # type: ignore[no-untyped-def]
    """Sixteen times +0.0."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return _zeros()

    return v16(), codegen


@intrinsic
def load(typingctx, array, offset):  # type: ignore[no-untyped-def]
    """array[offset : offset + 16] of a contiguous float32 array."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return _load(builder, _pointer(context, builder, sig.args[0], *args))

    return v16(array, _INDEX), codegen


@intrinsic
def store(typingctx, array, offset, value):  # type: ignore[no-untyped-def]
    """array[offset : offset + 16] = value."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        _store(builder, args[2], _pointer(context, builder, sig.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.void(array, _INDEX, v16), codegen


@intrinsic
def bit_lanes(typingctx, array, offset, bit):  # type: ignore[no-untyped-def]
    """Bit number `bit` of array[offset : offset + 16] (uint16) as 0.0 or 1.0."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        words_type = ir.VectorType(ir.IntType(16), LANES)
        wide_type = ir.VectorType(_INT32, LANES)
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1])
        words = builder.load(builder.bitcast(pointer, words_type.as_pointer()), align=2)
        wide = builder.zext(words, wide_type)
        shift = _splat(builder, builder.trunc(args[2], _INT32))
        bits = builder.and_(builder.lshr(wide, shift), _indices([1] * LANES))
        return builder.sitofp(bits, _VECTOR)

    return v16(array, _INDEX, _INDEX), codegen


@intrinsic
def keep(typingctx, value, count):  # type: ignore[no-untyped-def]
    """The first `count` lanes of `value`, the others +0.0 (a selection, not a product: it also stops a NaN)."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        limit = _splat(builder, builder.trunc(args[1], _INT32))
        mask = builder.icmp_signed("<", _indices(range(LANES)), limit)
        return builder.select(mask, args[0], _zeros())

    return v16(v16, _INDEX), codegen


@intrinsic
def tree_sum(typingctx, value):  # type: ignore[no-untyped-def]
    """The sum of the 16 lanes as a float32, in the order of the fixed tree (see `_tree`)."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        total = _tree(builder, [args[0]] + [_zeros()] * (LANES - 1))
        return builder.extract_element(total, ir.Constant(_INT32, 0))

    return types.float32(v16), codegen


# ------------------------------------------------------------------ register tiles


class Tile(NamedTuple):
    """Operations on a tile of `rows` x `columns` vectors (a Numba UniTuple of v16, row by row)."""

    rows: int
    columns: int
    zero: Any
    load: Any
    store: Any
    spread: Any
    add: Any
    accumulate: Any
    outer: Any
    collect: Any


@cache
def tile(rows: int, columns: int) -> Tile:
    """The operations on a tile of rows x columns vectors; 16 * columns neighbouring floats make a row."""
    cells = [(i, c) for i in range(rows) for c in range(columns)]
    tile_type = types.UniTuple(v16, len(cells))

    def step(offset: Any, count: int) -> ir.Constant:
        return ir.Constant(offset.type, count)

    @intrinsic
    def tile_zero(typingctx):  # type: ignore[no-untyped-def]
        """t[i, c] = 0."""

        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            return cgutils.pack_array(builder, [_zeros() for _ in cells])

        return tile_type(), codegen

    @intrinsic
    def tile_load(typingctx, array, offset, row_stride):  # type: ignore[no-untyped-def]
        """t[i, c] = array[offset + i * row_stride + 16 c : + 16]."""

        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            vectors = []
            for i, c in cells:
                where = builder.add(_at(builder, args[1], args[2], i), step(args[1], LANES * c))
                vectors.append(_load(builder, _pointer(context, builder, sig.args[0], args[0], where)))
            return cgutils.pack_array(builder, vectors)

        return tile_type(array, _INDEX, _INDEX), codegen

    @intrinsic
    def tile_store(typingctx, array, offset, row_stride, t):  # type: ignore[no-untyped-def]
        """array[offset + i * row_stride + 16 c : + 16] = t[i, c]."""

        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            for k, (i, c) in enumerate(cells):
                where = builder.add(_at(builder, args[1], args[2], i), step(args[1], LANES * c))
                pointer = _pointer(context, builder, sig.args[0], args[0], where)
                _store(builder, builder.extract_value(args[3], k), pointer)
            return context.get_dummy_value()

        return types.void(array, _INDEX, _INDEX, tile_type), codegen

    @intrinsic
    def tile_spread(typingctx, array, offset):  # type: ignore[no-untyped-def]
        """t[i, c] = array[offset + i] in all lanes."""

        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            vectors = []
            for i in range(rows):
                where = builder.add(args[1], step(args[1], i))
                scalar = builder.load(_pointer(context, builder, sig.args[0], args[0], where))
                vectors += [_splat(builder, scalar)] * columns
            return cgutils.pack_array(builder, vectors)

        return tile_type(array, _INDEX), codegen

    @intrinsic
    def tile_add(typingctx, a, b):  # type: ignore[no-untyped-def]
        """t[i, c] = a[i, c] + b[i, c]."""

        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            a, b = args
            sums = [builder.fadd(builder.extract_value(a, k), builder.extract_value(b, k)) for k in range(len(cells))]
            return cgutils.pack_array(builder, sums)

        return tile_type(tile_type, tile_type), codegen

    @intrinsic
    def tile_accumulate(typingctx, t, weights, offset, weight_stride, array, array_offset):  # type: ignore[no-untyped-def]
        """t[i, c] = fma(weights[offset + i * weight_stride], array[array_offset + 16 c : + 16], t[i, c])."""

        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            t, weights, offset, stride, array, at = args
            places = [builder.add(at, step(at, LANES * c)) for c in range(columns)]
            columns_in = [_load(builder, _pointer(context, builder, sig.args[4], array, place)) for place in places]
            vectors = []
            for i in range(rows):
                pointer = _pointer(context, builder, sig.args[1], weights, _at(builder, offset, stride, i))
                weight = _splat(builder, builder.load(pointer))
                for c in range(columns):
                    old = builder.extract_value(t, i * columns + c)
                    vectors.append(_llvm_call(builder, "fma", [weight, columns_in[c], old]))
            return cgutils.pack_array(builder, vectors)

        return tile_type(tile_type, weights, _INDEX, _INDEX, array, _INDEX), codegen

    @intrinsic
    def tile_outer(typingctx, t, a, a_offset, a_stride, b, b_offset, b_stride):  # type: ignore[no-untyped-def]
        """t[i, c] = fma(a[a_offset + i * a_stride : + 16], b[b_offset + c * b_stride : + 16], t[i, c])."""

        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            t, a, a_at, a_stride, b, b_at, b_stride = args
            places = [_at(builder, b_at, b_stride, c) for c in range(columns)]
            right = [_load(builder, _pointer(context, builder, sig.args[4], b, place)) for place in places]
            vectors = []
            for i in range(rows):
                left = _load(builder, _pointer(context, builder, sig.args[1], a, _at(builder, a_at, a_stride, i)))
                for c in range(columns):
                    old = builder.extract_value(t, i * columns + c)
                    vectors.append(_llvm_call(builder, "fma", [left, right[c], old]))
            return cgutils.pack_array(builder, vectors)

        return tile_type(tile_type, a, _INDEX, _INDEX, b, _INDEX, _INDEX), codegen

    @intrinsic
    def tile_collect(typingctx, array, offset, row_stride, t):  # type: ignore[no-untyped-def]
        """array[offset + i * row_stride + c] += the lanes of t[i, c] summed by the fixed tree."""

        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            array, offset, stride, t = args
            rows_at_once = LANES // columns
            row_type = ir.VectorType(_FLOAT, columns)
            for first in range(0, rows, rows_at_once):
                group = range(first, min(first + rows_at_once, rows))
                vectors = [builder.extract_value(t, i * columns + c) for i in group for c in range(columns)]
                sums = _tree(builder, vectors + [_zeros()] * (LANES - len(vectors)))
                for i in group:
                    start = (i - first) * columns
                    row = builder.shuffle_vector(sums, sums, _indices(range(start, start + columns)))
                    pointer = _pointer(context, builder, sig.args[0], array, _at(builder, offset, stride, i))
                    _store(builder, builder.fadd(_load(builder, pointer, row_type), row), pointer)
            return context.get_dummy_value()

        return types.void(array, _INDEX, _INDEX, tile_type), codegen

    return Tile(
        rows, columns, tile_zero, tile_load, tile_store, tile_spread, tile_add, tile_accumulate, tile_outer, tile_collect
    )
