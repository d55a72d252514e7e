"""The CUDA target: the only file that imports a CUDA package (numba-cuda), and all that the kernels need of it.

`gpu/` uses `cuda` from here for thread indices, barriers, shared and local arrays; the primitives below are what Numba
has no name for. Each is written twice: as an intrinsic for the compiler, and as plain Python for Numba's simulator
(`NUMBA_ENABLE_CUDASIM=1`), which gives the same bits, `fma` included.

The numerics forbid that a compiler fuses a multiplication with an addition (`docs/numerics.md`), but NVVM does so unless
told otherwise, and numba-cuda has no option for it. So `_without_fusing` hands the option through, and `check_ptx` looks
at what came out, each time.
"""

import importlib.util
import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinymlds.kernels import activations, rng


class CudaError(RuntimeError):
    """There is nothing that could run a kernel, or it failed; the message says what is missing or what happened."""


if importlib.util.find_spec("numba_cuda") is None:
    raise CudaError("the cuda backend needs numba-cuda: pip install 'tinymlds[cuda]'")

from numba import cuda as cuda  # noqa: E402
from numba.cuda.core import config  # noqa: E402

config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # few networks are few blocks, and that is no mistake

SIMULATED = bool(config.ENABLE_CUDASIM)
"""Kernels run in Numba's simulator: thread by thread in Python, on tiny networks only."""

Decorator = Callable[[Callable[..., Any]], Any]

_ZERO = np.float32(0.0)
_REGISTERS = 16384
"""Registers of each of the four schedulers of a multiprocessor."""
_WANTED = 96
"""Registers that a thread of the default shape does well with."""


def residency(threads: int) -> tuple[int, int]:
    """Blocks of so many threads that a multiprocessor should hold, and the registers that a thread has then."""

    def registers(blocks: int) -> int:
        warps_of_a_scheduler = -(-threads * blocks // 128)
        return min(255, _REGISTERS // (32 * warps_of_a_scheduler) // 8 * 8)

    blocks = max([1, *(count for count in range(1, 17) if registers(count) >= _WANTED)])
    return blocks, registers(blocks)


inlined: Decorator
"""For a function that becomes part of its callers."""
separated: Decorator
"""For a function that stays apart; it has to call `separate()` first."""

if SIMULATED:
    sys.setswitchinterval(1e-4)  # threads wait for each other all the time; with Python's 5 ms it takes 25 times as long

    def _simulated(function: Callable[..., Any]) -> Any:
        """The simulator puts its own `cuda` into the module of a kernel, and of each device function while that runs."""
        return cuda.jit(device=True)(function) if "cuda" in function.__code__.co_names else function

    inlined, separated = _simulated, _simulated

    SHARED_ALIGNMENT = None

    def kernel(threads: int) -> Decorator:
        """A kernel; the simulator has no registers to bound."""
        return lambda function: cuda.jit(function)

    def fma(x: Any, y: Any, z: Any) -> Any:
        """x * y + z, rounded once to float32.

        The product is exact in float64. The sum is rounded to odd there: if it is not exact, its last bit is set, so that
        the second rounding cannot see a tie that is none (Boldo and Melquiond, "Emulation of FMA and correctly rounded
        sums: proved algorithms using rounding to odd", IEEE Transactions on Computers 57(4), 2008).
        """
        product, z = float(x) * float(y), float(z)
        total = product + z
        if not math.isfinite(total):
            return np.float32(total)
        part = total - product  # Knuth's two-sum
        error = (product - (total - part)) + (z - part)
        if error and not int(math.ldexp(math.frexp(total)[0], 53)) & 1:
            total = math.nextafter(total, math.inf if error > 0.0 else -math.inf)
        return np.float32(total)

    def sqrt(x: Any) -> Any:
        """IEEE square root."""
        return np.sqrt(x)

    def load(array: Any, offset: Any) -> Any:
        """array[offset]."""
        return array[offset]

    def load2(array: Any, offset: Any) -> Any:
        """array[offset] and array[offset + 1]; the offset is even."""
        return array[offset], array[offset + 1]

    def store(array: Any, offset: Any, value: Any) -> None:
        """array[offset] = value."""
        array[offset] = value

    def store2(array: Any, offset: Any, first: Any, second: Any) -> None:
        """array[offset], array[offset + 1] = first, second; the offset is even."""
        array[offset] = first
        array[offset + 1] = second

    load2_shared, store2_shared = load2, store2

    def separate() -> None:
        """Nothing to keep apart."""

    _MAILBOXES = np.zeros((2, 1024), np.float32)  # the simulator runs one block at a time
    _LETTERS = np.zeros(1024, np.int64)

    @cuda.jit(device=True)
    def exchange(value: Any, distance: Any) -> Any:
        """The value of the thread whose number differs in the bit `distance`; every thread of the block takes part."""
        thread = cuda.threadIdx.x
        mailbox = _MAILBOXES[_LETTERS[thread] & 1]  # two in turn, so that one barrier will do
        _LETTERS[thread] += 1
        mailbox[thread] = value
        cuda.syncthreads()
        return mailbox[thread ^ distance]

else:
    import llvmlite.ir as ir
    from numba.cuda import libdevice, types
    from numba.cuda.cudadrv import nvvm
    from numba.cuda.extending import intrinsic

    _FLOAT, _INT32 = ir.FloatType(), ir.IntType(32)
    _PAIR = ir.VectorType(_FLOAT, 2)
    _TWO = types.UniTuple(types.float32, 2)

    inlined, separated = cuda.jit(device=True, forceinline=True), cuda.jit(device=True)

    SHARED_ALIGNMENT = 16

    def kernel(threads: int) -> Decorator:
        """A kernel for blocks of so many threads.

        Without link-time optimisation, which would be a second compiler that may fuse. As functions that stay apart are
        then compiled without a look at the kernel, the registers that all may use are said twice.
        """
        blocks, registers = residency(threads)
        options = {"launch_bounds": (threads, blocks), "max_registers": registers, "lto": False}
        return lambda function: cuda.jit(function, **options)  # as `@cuda.jit(...)` it would forget `lto`

    @inlined
    def fma(x: Any, y: Any, z: Any) -> Any:
        """x * y + z, rounded once."""
        return cuda.fma(x, y, z)

    @inlined
    def sqrt(x: Any) -> Any:
        """IEEE square root."""
        return libdevice.fsqrt_rn(x)

    # Explicit address spaces: a function that is not inlined knows nothing of where its arguments come from.
    _GLOBAL, _SHARED = 1, 3

    def _address(context: Any, builder: Any, sig: Any, args: Any, value: Any, space: int) -> Any:
        """The address of element args[1] of the array args[0], as a pointer to a `value` in an address space."""
        start = context.make_array(sig.args[0])(context, builder, args[0]).data
        element = builder.gep(start, [args[1]], inbounds=True)
        return builder.addrspacecast(builder.bitcast(element, value.as_pointer()), value.as_pointer(space))

    def _loader(space: int) -> Any:
        def load2(typingctx: Any, array: Any, offset: Any) -> Any:
            """array[offset] and array[offset + 1] in one access of 8 bytes; the offset is even."""

            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                pair = builder.load(_address(context, builder, sig, args, _PAIR, space), align=8)
                values = [builder.extract_element(pair, ir.Constant(_INT32, k)) for k in range(2)]
                return context.make_tuple(builder, _TWO, values)

            return _TWO(array, types.intp), codegen

        return intrinsic(load2)

    def _storer(space: int) -> Any:
        def store2(typingctx: Any, array: Any, offset: Any, first: Any, second: Any) -> Any:
            """array[offset], array[offset + 1] = first, second in one access of 8 bytes; the offset is even."""

            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                pair = ir.Constant(_PAIR, ir.Undefined)
                for k in range(2):
                    pair = builder.insert_element(pair, args[2 + k], ir.Constant(_INT32, k))
                builder.store(pair, _address(context, builder, sig, args, _PAIR, space), align=8)
                return context.get_dummy_value()

            return types.none(array, types.intp, types.float32, types.float32), codegen

        return intrinsic(store2)

    load2, load2_shared = _loader(_GLOBAL), _loader(_SHARED)
    store2, store2_shared = _storer(_GLOBAL), _storer(_SHARED)

    @intrinsic
    def load(typingctx: Any, array: Any, offset: Any) -> Any:
        """array[offset] of an array in device memory, without a look at its sign or its bounds."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.load(_address(context, builder, sig, args, _FLOAT, _GLOBAL), align=4)

        return types.float32(array, types.intp), codegen

    @intrinsic
    def store(typingctx: Any, array: Any, offset: Any, value: Any) -> Any:
        """array[offset] = value for an array in device memory, without a look at its sign or its bounds."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            builder.store(args[2], _address(context, builder, sig, args, _FLOAT, _GLOBAL), align=4)
            return context.get_dummy_value()

        return types.none(array, types.intp, types.float32), codegen

    @intrinsic
    def separate(typingctx: Any) -> Any:
        """Keep the function that calls it apart from its callers, so that registers are allotted to it alone."""

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            builder.function.attributes.add("noinline")
            return context.get_dummy_value()

        return types.none(), codegen

    @inlined
    def exchange(value: Any, distance: Any) -> Any:
        """The value of the thread whose number differs in the bit `distance`; every thread of the warp takes part."""
        return cuda.shfl_xor_sync(0xFFFFFFFF, value, distance)


@inlined
def clamp(x: Any, low: Any, high: Any) -> Any:
    """x within [low, high]; a NaN stays a NaN."""
    if x < low:
        return low
    if x > high:
        return high
    return x


@inlined
def unless_negative(u: Any, x: Any) -> Any:
    """0 where u <= 0, else x (also where u is a NaN)."""
    if u <= _ZERO:
        return _ZERO
    return x


MATH = activations.bind(inlined, activations.Primitives(fma, clamp, sqrt, unless_negative))
RANDOM = rng.bind(inlined)


# ------------------------------------------------------------------ compiling

Argument = tuple[str, int]
"""NumPy's name of a type, and the number of dimensions of a C-contiguous array of it; 0 for a number."""


@contextmanager
def _without_fusing() -> Iterator[None]:
    """Within it, NVVM fuses nothing on its own."""
    original = nvvm.compile_ir

    def compile_ir(llvmir: Any, **options: Any) -> Any:
        return original(llvmir, **{**options, "fma": False})

    nvvm.compile_ir = compile_ir
    try:
        yield
    finally:
        nvvm.compile_ir = original


def check_ptx(ptx: str) -> None:
    """Make sure that compiled code keeps to the numerics.

    Raises:
        ArithmeticError: it has float64 in it, or arithmetic that an assembler may fuse, that is not rounded as IEEE 754
            says, that is approximate, or that flushes subnormal numbers.
    """
    unsound = set(re.findall(r"\b[a-z]+[a-z0-9.]*\.f64\b", ptx))
    unsound |= set(re.findall(r"\b(?:add|sub|mul|mad|div|sqrt|rcp|fma)\.(?!rn\.f32\b)[a-z.]*f32\b", ptx))
    unsound |= set(re.findall(r"\b[a-z0-9.]+\.(?:ftz|approx)\b[a-z0-9.]*", ptx))
    if unsound:
        raise ArithmeticError(f"compiled CUDA code breaks the numerics: {', '.join(sorted(unsound))}")


def _signature(arguments: tuple[Argument, ...]) -> Any:
    """Numba's types of a kernel's arguments."""
    return tuple(
        types.Array(getattr(types, name), dimensions, "C") if dimensions else getattr(types, name)
        for name, dimensions in arguments
    )


def compile_kernel(kernel: Any, arguments: tuple[Argument, ...]) -> None:
    """Compile a kernel for the current device, and check what came out.

    Raises:
        ArithmeticError: the compiled code does not keep to the numerics.
        CudaError: it cannot be compiled or linked.
    """
    if SIMULATED or kernel.overloads:
        return
    with failures('cannot start (with a driver older than CUDA 13, pip install "tinymlds[cuda12]")'), _without_fusing():
        kernel.compile(_signature(arguments))
    try:
        check_ptx(compiled_ptx(kernel))
    except ArithmeticError:
        kernel.overloads.clear()
        raise
    kernel.disable_compile()  # arguments of other types would compile it again, as they like it


def compiled_ptx(kernel: Any) -> str:
    """The PTX that a compiled kernel was made from."""
    (compiled,) = kernel.overloads.values()
    if compiled.library._lto:
        raise ArithmeticError("the CUDA code was optimised once more while it was linked, which may break the numerics")
    return str(compiled.library.get_asm_str())


# ------------------------------------------------------------------ the device


@contextmanager
def failures(what: str = "failed") -> Iterator[None]:
    """Turns whatever the packages raise of a driver, a device or its memory into a `CudaError`."""
    try:
        yield
    except Exception as error:  # they have half a dozen classes for it, with nothing in common
        if not type(error).__module__.startswith(("numba.cuda.cudadrv", "cuda.")):
            raise
        raise CudaError(f"the cuda backend {what}: {_in_one_line(error)}") from error


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(" .:")


def require_device() -> None:
    """Make sure that there is a device.

    Raises:
        CudaError: there is no driver, or no device.
    """
    with failures("cannot start"):
        if not SIMULATED and len(cuda.gpus) == 0:
            raise CudaError("the cuda backend finds a driver but no device; is CUDA_VISIBLE_DEVICES set?")
        cuda.current_context()


def device_name() -> str:
    """Return the name that the device gives itself."""
    name = "simulator" if SIMULATED else cuda.get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)


def resident_blocks(kernel: Any, threads: int) -> int:
    """Blocks of so many threads of a compiled kernel that the device runs at once."""
    if SIMULATED:
        return 4  # one after another
    (compiled,) = kernel.overloads.values()
    return int(compiled.max_cooperative_grid_blocks(threads))


def free_bytes() -> float:
    """Free memory of the device."""
    return float(cuda.current_context().get_memory_info().free)
