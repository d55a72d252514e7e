"""Runs PTX without a GPU: all threads of a block at once, in NumPy. Slow, but it is the compiled code that runs.

It covers what NVVM makes of this project's kernel, and refuses everything else. Threads that take different branches wait
for each other at the next common place (the lowest one goes first). Arithmetic is that of the PTX manual: IEEE 754 in
float32, `fma` rounded once. What a GPU would trap is an error here too: a misaligned address, a barrier that not all
threads reach, an exchange with a thread that is elsewhere. And what it would not trap: a *race*, that is a place in memory
that two threads use between two barriers, one of them to write (compute-sanitizer's racecheck, for global memory too).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray

_TYPES = {
    "f32": np.float32, "b32": np.uint32, "u32": np.uint32, "s32": np.int32, "b64": np.uint64, "u64": np.uint64,
    "s64": np.int64, "b16": np.uint16, "u16": np.uint16, "s16": np.int16, "pred": np.bool_,
}  # fmt: skip
_REGISTERS = {
    "f": np.float32,
    "r": np.uint32,
    "rd": np.uint64,
    "rs": np.uint16,
    "p": np.bool_,
    "SP": np.uint64,
    "SPL": np.uint64,
}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "neu": lambda a, b: ~np.equal(a, b), "ltu": lambda a, b: ~np.greater_equal(a, b),
    "leu": lambda a, b: ~np.greater(a, b), "gtu": lambda a, b: ~np.less_equal(a, b), "geu": lambda a, b: ~np.less(a, b),
    "equ": lambda a, b: ~np.less(a, b) & ~np.greater(a, b), "nan": lambda a, b: np.isnan(a) | np.isnan(b),
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
}  # fmt: skip


_SEVERAL = -2
"""In place of a thread: more than one."""


class PtxError(Exception):
    """Something that a GPU would trap, a race, or an instruction that is not known here."""


def fma(x: Array, y: Array, z: Array) -> Array:
    """x * y + z in float32, rounded once: the exact product, the sum rounded to odd in float64, then to float32."""
    product = np.multiply(x, y, dtype=np.float64)
    total = product + z
    part = total - product
    error = (product - (total - part)) + (z - part)
    inexact = error != 0.0  # also where the sum is not finite
    if inexact.any():
        bits = total.view(np.int64)
        step = np.where((error > 0.0) == (total > 0.0), 1, -1)
        np.add(bits, step, out=bits, where=inexact & (bits & 1 == 0) & np.isfinite(total))
    return total.astype(np.float32)


# ------------------------------------------------------------------ reading


class Instruction(NamedTuple):
    """`@predicate name operands`."""

    predicate: str
    """A register, with "!" in front if it is negated; "" if there is none."""
    name: tuple[str, ...]
    """The parts between the dots."""
    operands: tuple[str, ...]


@dataclass
class Function:
    """A function or kernel: instructions, and where labels point."""

    name: str
    parameters: list[str]
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    local_bytes: int = 0


class Program:
    """A module of PTX."""

    def __init__(self, text: str) -> None:
        text = re.sub(r"//.*", "", text)
        self.shared: dict[str, int] = {}
        self.shared_bytes = 0
        for name, size in re.findall(r"\.shared \.align \d+ \.b8 (\w+)\[(\d+)\]", text):
            self.shared[name] = self.shared_bytes
            self.shared_bytes += -(-int(size) // 16) * 16
        self.functions: dict[str, Function] = {}
        header = r"\.(?:func|entry)\s*(?:\(\.param [^)]*\))?\s*([\w$]+)\s*\(([^)]*)\)([^{;]*)\{"
        for match in re.finditer(header, text):
            function = Function(match[1], re.findall(r"(\w+_param_\d+)", match[2]))
            _read_body(function, _body(text, match.end()))
            self.functions[function.name] = function

    @property
    def entry(self) -> str:
        """The kernel."""
        (name,) = [name for name in self.functions if "3gpu6kernel5train" in name]
        return name

    def launch(self, blocks: int, threads: int, arguments: list[Array | int], races: bool = True) -> None:
        """Run the kernel. Arrays are C-contiguous and are passed as Numba passes them; they are written to in place."""
        memory = _Memory(self.shared_bytes, threads, max(f.local_bytes for f in self.functions.values()), arguments)
        memory.races = races
        function = self.functions[self.entry]
        assert len(function.parameters) == len(memory.arguments)
        with np.errstate(all="ignore"):
            for block in range(blocks):
                memory.new_block()
                machine = _Block(self, memory, block, threads)
                machine.run(function, dict(zip(function.parameters, memory.arguments, strict=True)), None)
        memory.write_back(arguments)


def _body(text: str, start: int) -> str:
    """What lies between the brace before `start` and the one that closes it."""
    depth = 1
    for brace in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return text[start : brace.start()]
    raise PtxError("a brace is not closed")


def _read_body(function: Function, body: str) -> None:
    body = re.sub(
        r"\{((?:\s*%\w+\s*,?)+)\}", lambda match: f"<{match[1]}>", body
    )  # vectors, before blocks lose their braces
    for line in re.split(r";|(?<=:)\s", body.replace("{", " ").replace("}", " ")):
        line = " ".join(line.split())
        while match := re.match(r"([\w$]+):\s*", line):
            function.labels[match[1]] = len(function.code)
            line = line[match.end() :]
        if match := re.match(r"\.local .*\[(\d+)\]", line):
            function.local_bytes += int(match[1])
        if not line or line.startswith("."):
            continue
        match = re.match(r"(?:@(!?%\w+) )?([\w.]+)\s*(.*)", line)
        assert match, line
        parts = re.findall(r"<[^>]*>|\[[^\]]*\]|\([^)]*\)|[^,\s]+", match[3])
        function.code.append(Instruction(match[1] or "", tuple(match[2].split(".")), tuple(part.strip() for part in parts)))


# ------------------------------------------------------------------ memory


class _Memory:
    """One flat memory: shared, then local (a stretch for each thread), then every array, and who used it last."""

    def __init__(self, shared: int, threads: int, local: int, arguments: list[Array | int]) -> None:
        self.races = True
        self._local, self._local_start = -(-local // 16) * 16, shared
        self._shared = shared
        self.end_of_local = at = shared + threads * self._local
        self._places: list[tuple[int, int]] = []
        self.arguments: list[Any] = []
        for argument in arguments:
            if isinstance(argument, int):
                self.arguments.append(np.uint64(argument))
                continue
            assert argument.flags.c_contiguous
            at = -(-at // 256) * 256 + 256  # a gap, so that what runs over the end hits nothing
            self._places.append((at, argument.nbytes))
            strides, shape = argument.strides, argument.shape
            numbers = (0, 0, argument.size, argument.itemsize, at, *shape, *strides)
            self.arguments += [np.uint64(number) for number in numbers]
            at += argument.nbytes
        self.bytes = np.zeros(-(-at // 16) * 16 + 256, np.uint8)
        for argument, (start, size) in zip(_arrays(arguments), self._places, strict=True):
            self.bytes[start : start + size] = argument.reshape(-1).view(np.uint8)
        self._views = {size: self.bytes.view(f"u{size}") for size in (2, 4, 8)}
        words = self.bytes.size // 4
        self._allowed = np.zeros(words, bool)
        self._allowed[: self.end_of_local // 4] = True
        for start, size in self._places:
            self._allowed[start // 4 : -(-(start + size) // 4)] = True
        self._written_at, self._written_by, self._read_at, self._read_by = (np.full(words, -1) for _ in range(4))
        self.time = 0

    def new_block(self) -> None:
        """Shared memory starts as anything: as NaN."""
        self.bytes[: self._shared] = 0xFF
        self.time += 1

    def local(self, threads: int) -> Array:
        """Where the local memory of each thread starts."""
        return (self._local_start + np.arange(threads) * self._local).astype(np.uint64)

    def write_back(self, arguments: list[Array | int]) -> None:
        """Copy arrays back to where they came from."""
        for argument, (start, size) in zip(_arrays(arguments), self._places, strict=True):
            argument.reshape(-1).view(np.uint8)[:] = self.bytes[start : start + size]

    def _words(self, address: Array) -> Array:
        words = (address >> np.uint64(2)).astype(np.int64)
        if words.size and (words.max() >= self._allowed.size or not self._allowed[words].all()):
            raise PtxError("an access outside of all arrays")
        return words

    def load(self, address: Array, dtype: Any, threads: Array) -> Array:
        size = np.dtype(dtype).itemsize
        words = self._words(address)
        if self.races:
            if ((self._written_at[words] == self.time) & (self._written_by[words] != threads)).any():
                raise PtxError("a race: a thread reads what another one has written since the last barrier")
            before = np.where(self._read_at[words] == self.time, self._read_by[words], threads)
            self._read_by[words] = np.where(before == threads, threads, _SEVERAL)
            self._read_at[words] = self.time
            shared = words[self._read_by[words] != threads]  # also by other threads of this instruction
            self._read_by[shared] = _SEVERAL
        found: Array = self._views[size][(address // np.uint64(size)).astype(np.int64)].view(dtype)
        return found

    def store(self, address: Array, value: Array, threads: Array) -> None:
        size = value.dtype.itemsize
        words = self._words(address)
        if self.races:
            read = (self._read_at[words] == self.time) & (self._read_by[words] != threads)
            written = (self._written_at[words] == self.time) & (self._written_by[words] != threads)
            self._written_at[words], self._written_by[words] = self.time, threads
            if read.any() or written.any() or (self._written_by[words] != threads).any():
                raise PtxError("a race: a thread writes what another one has used since the last barrier")
        self._views[size][(address // np.uint64(size)).astype(np.int64)] = value.view(f"u{size}")


def _arrays(arguments: list[Array | int]) -> list[Array]:
    return [argument for argument in arguments if not isinstance(argument, int)]


@cache
def _number(text: str, dtype: Any) -> Any:
    """A literal as a number of this type."""
    size = np.dtype(dtype).itemsize
    bits = int(text[2:], 16) if text.startswith("0f") else int(text) % 2 ** (8 * size)
    return np.array(bits, f"u{size}").view(dtype)[()]


# ------------------------------------------------------------------ running


class _Block:
    """A thread block."""

    def __init__(self, program: Program, memory: _Memory, block: int, threads: int) -> None:
        self._program, self._memory, self._size = program, memory, threads
        self._special = {
            "%tid.x": np.arange(threads, dtype=np.uint32),
            "%ctaid.x": np.full(threads, block, np.uint32),
            "%ntid.x": np.full(threads, threads, np.uint32),
        }
        self._everyone = np.arange(threads)

    def run(self, function: Function, parameters: dict[str, Any], among: Array | None) -> Array:
        """Run a function for all threads, or for those that `among` names; what it returns."""
        frame = _Frame(self, function, parameters)
        active = self._everyone if among is None else among
        where = np.full(self._size, -1)
        where[active] = 0
        waiting = np.zeros(self._size, bool)
        while True:
            ready = active[(where[active] >= 0) & ~waiting[active]]
            if not ready.size:
                if not waiting.any():
                    return frame.result
                if waiting.sum() != self._size:
                    raise PtxError("a barrier that not all threads reach")
                self._memory.time += 1
                waiting[:] = False
                frame.release()
                continue
            start = int(where[ready].min())
            chosen = ready[where[ready] == start]
            # Alone until the next label that others may be waiting at, or until they branch.
            others = where[ready][where[ready] != start]
            limit = int(others.min()) if others.size else len(function.code)
            self._stretch(frame, start, limit, chosen, where, waiting)

    def _stretch(self, frame: "_Frame", at: int, limit: int, chosen: Array, where: Array, waiting: Array) -> None:
        """Run the chosen threads from `at` on until they part, wait, end, or come to where others are."""
        code = frame.function.code
        while at < limit:
            instruction = code[at]
            match instruction.name[0]:
                case "bra":
                    target = frame.function.labels[instruction.operands[0]]
                    taken = frame.predicate(instruction.predicate)[chosen]
                    if taken.all() and target < limit:
                        at = target
                        continue
                    if taken.any():
                        where[chosen] = np.where(taken, target, at + 1)
                        return
                case "ret" | "exit":
                    if instruction.predicate:
                        taken = frame.predicate(instruction.predicate)[chosen]
                        where[chosen] = np.where(taken, -1, at + 1)
                    else:
                        where[chosen] = -1
                    return
                case "bar" | "barrier":
                    frame.arrive(instruction, chosen)
                    waiting[chosen] = True
                    where[chosen] = at + 1
                    return
                case _:
                    assert not instruction.predicate, instruction
                    frame.execute(instruction, chosen)
            at += 1
        where[chosen] = at

    def call(self, name: str, parameters: list[Any], chosen: Array) -> Array:
        function = self._program.functions[name]
        given = dict(zip(function.parameters, parameters, strict=True))
        return self.run(function, given, None if chosen.size == self._size else chosen)


@cache
def _parts(operand: str) -> tuple[str, ...]:
    """The operand, or those of a vector."""
    return tuple(re.findall(r"[^<>,\s]+", operand))


@cache
def _place(operand: str) -> tuple[str, np.uint64]:
    """The register of an address, and what is added to it."""
    base, _, offset = operand.strip("[]").partition("+")
    return base, np.uint64(int(offset or 0) % 2**64)


@cache
def _kind(register: str) -> str:
    """f, r, rd, rs, p, SP or SPL."""
    return register[1:].rstrip("0123456789")


def _as_wide_as(register: str, value: Array) -> Array:
    """What was loaded, extended to the width of a register by the sign of its type."""
    width = np.dtype(_REGISTERS[_kind(register)]).itemsize
    if width == value.dtype.itemsize:
        return value
    return value.astype(f"{'i' if np.issubdtype(value.dtype, np.signedinteger) else 'u'}{width}")


class _Frame:
    """The registers of a function that is being run, an array over the threads for each."""

    def __init__(self, block: _Block, function: Function, parameters: dict[str, Any]) -> None:
        self.function = function
        self.result = np.zeros(block._size, np.uint32)
        self._block, self._parameters = block, parameters
        self._registers: dict[str, Array] = {}
        self._outgoing: dict[str, Array] = {}
        self._reduction: tuple[str, Array] | None = None

    # -- operands

    def value(self, operand: str, dtype: Any) -> Any:
        """An operand as an array over all threads, or a number, of this type."""
        if operand in self._registers:
            return self._registers[operand].view(dtype)
        if operand in self._block._special:
            return self._block._special[operand].view(dtype)
        if not operand.startswith(("%", "_")):
            return _number(operand, dtype)
        if operand in self._block._program.shared:
            return np.uint64(self._block._program.shared[operand]).view(dtype)
        if operand.startswith("__local_depot"):
            return self._block._memory.local(self._block._size).view(dtype)
        if operand.startswith("%"):  # read before it was written: only by threads that do not care
            return np.zeros(self._block._size, dtype)
        raise PtxError(f"what is {operand}?")

    def predicate(self, text: str) -> Array:
        """For all threads, whether a branch is taken."""
        if not text:
            return np.ones(self._block._size, bool)
        found: Array = self.value(text.lstrip("!"), np.bool_)
        return ~found if text.startswith("!") else found

    def set(self, register: str, value: Any, chosen: Array) -> None:
        """Write a register, for the chosen threads."""
        if register == "_":
            return
        array = np.asarray(value).view(_REGISTERS[_kind(register)])
        if chosen.size == self._block._size:
            self._registers[register] = array if array.ndim else np.full(self._block._size, array)
            return
        old = self._registers.get(register)
        new = np.zeros(self._block._size, array.dtype) if old is None else old.copy()
        new[chosen] = array[chosen] if array.ndim else array
        self._registers[register] = new

    def _address(self, operand: str) -> Array:
        base, offset = _place(operand)
        return self._of_all(self.value(base, np.uint64) + offset)

    def _of_all(self, value: Any) -> Array:
        return value if value.ndim else np.full(self._block._size, value)

    # -- barriers

    def arrive(self, instruction: Instruction, chosen: Array) -> None:
        """Come to a barrier; `bar.red.or.pred p, barrier, q` says to each whether q holds for any."""
        if instruction.name[1] == "red":
            to, _, given = instruction.operands
            before = self._reduction[1] if self._reduction else np.zeros(self._block._size, bool)
            before[chosen] = self.predicate(given)[chosen]
            self._reduction = to, before

    def release(self) -> None:
        if self._reduction:
            to, given = self._reduction
            self.set(to, np.full(self._block._size, given.any()), self._block._everyone)
            self._reduction = None

    # -- instructions

    def execute(self, instruction: Instruction, chosen: Array) -> None:
        _, name, operands = instruction
        method = getattr(self, f"_{name[0]}", None)
        if method is not None:
            method(name, operands, chosen)
            return
        dtype = _TYPES.get(name[-1])
        operation = _OPERATIONS.get(".".join(name[:2])) or _OPERATIONS.get(name[0])
        if dtype is None or operation is None or (dtype is np.float32 and name[0] in _ROUNDED and name[1] != "rn"):
            raise PtxError(f"not known here: {'.'.join(name)}")
        self.set(operands[0], operation(*(self.value(operand, dtype) for operand in operands[1:])), chosen)

    def _mov(self, name: tuple[str, ...], operands: tuple[str, ...], chosen: Array) -> None:
        self.set(operands[0], self.value(operands[1], _TYPES[name[-1]]), chosen)

    def _cvta(self, name: tuple[str, ...], operands: tuple[str, ...], chosen: Array) -> None:
        self.set(operands[0], self.value(operands[1], np.uint64), chosen)  # there is one memory

    def _cvt(self, name: tuple[str, ...], operands: tuple[str, ...], chosen: Array) -> None:
        to, source = _TYPES[name[-2]], _TYPES[name[-1]]
        if np.float32 in (to, source):
            raise PtxError(f"not known here: {'.'.join(name)}")
        self.set(operands[0], self.value(operands[1], source).astype(to), chosen)

    def _setp(self, name: tuple[str, ...], operands: tuple[str, ...], chosen: Array) -> None:
        a, b = (self.value(operand, _TYPES[name[-1]]) for operand in operands[1:])
        self.set(operands[0], _COMPARE[name[1]](a, b), chosen)

    def _selp(self, name: tuple[str, ...], operands: tuple[str, ...], chosen: Array) -> None:
        a, b = (self.value(operand, _TYPES[name[-1]]) for operand in operands[1:3])
        self.set(operands[0], np.where(self.predicate(operands[3]), a, b), chosen)

    def _shl(self, name: tuple[str, ...], operands: tuple[str, ...], chosen: Array) -> None:
        self._shift(np.left_shift, name, operands, chosen)

    def _shr(self, name: tuple[str, ...], operands: tuple[str, ...], chosen: Array) -> None:
        self._shift(np.right_shift, name, operands, chosen)

    def _shift(self, operation: Any, name: tuple[str, ...], operands: tuple[str, ...], chosen: Array) -> None:
        dtype = _TYPES[name[-1]]
        amount = self.value(operands[2], np.uint32)
        if (np.asarray(amount) >= 8 * np.dtype(dtype).itemsize).any():
            raise PtxError("a shift by the width or more")
        self.set(operands[0], operation(self.value(operands[1], dtype), np.asarray(amount).astype(dtype)), chosen)

    def _shfl(self, name: tuple[str, ...], operands: tuple[str, ...], chosen: Array) -> None:
        distance, clamp, mask = (np.unique(self.value(operand, np.int32)) for operand in operands[2:])
        if name[1:] != ("sync", "bfly", "b32") or clamp != [31] or mask != [-1] or distance.size != 1:
            raise PtxError(f"not known here: {'.'.join(name)} {operands}")
        partners = chosen ^ int(distance[0])
        if not np.isin(partners, chosen).all() or (np.bincount(chosen // 32)[np.unique(chosen // 32)] != 32).any():
            raise PtxError("an exchange that not all threads of a warp take part in")
        received = np.zeros(self._block._size, np.uint32)
        received[chosen] = self._of_all(self.value(operands[1], np.uint32))[partners]
        self.set(operands[0].partition("|")[0], received, chosen)

    def _ld(self, name: tuple[str, ...], operands: tuple[str, ...], chosen: Array) -> None:
        dtype = _TYPES[name[-1]]
        if name[1] == "param":
            source = operands[1].strip("[]").partition("+")[0]
            found = self._outgoing.get(source, self._parameters.get(source))
            passed = np.zeros(self._block._size, dtype) if found is None else np.asarray(found).view(dtype)
            self.set(operands[0], _as_wide_as(operands[0], passed), chosen)
            return
        to = _parts(operands[0])
        address = self._address(operands[1])[chosen]
        size = np.dtype(dtype).itemsize
        if (address & np.uint64(len(to) * size - 1)).any():
            raise PtxError("an access is not aligned")
        for k, register in enumerate(to):
            loaded = np.zeros(self._block._size, dtype)
            loaded[chosen] = self._block._memory.load(address + np.uint64(k * size), dtype, chosen)
            self.set(register, _as_wide_as(register, loaded), chosen)

    def _st(self, name: tuple[str, ...], operands: tuple[str, ...], chosen: Array) -> None:
        dtype = _TYPES[name[-1]]
        if name[1] == "param":
            target = operands[0].strip("[]").partition("+")[0]
            value = self._of_all(self.value(operands[1], dtype))
            if target == "func_retval0":
                self.result[chosen] = value.view(np.uint32)[chosen]
            else:
                self._outgoing[target] = value
            return
        address = self._address(operands[0])[chosen]
        size = np.dtype(dtype).itemsize
        parts = _parts(operands[1])
        if (address & np.uint64(len(parts) * size - 1)).any():
            raise PtxError("an access is not aligned")
        for k, part in enumerate(parts):
            wide = self._registers.get(part)
            narrowed = wide is not None and wide.dtype.itemsize > size
            value = wide.astype(f"u{size}") if narrowed else self.value(part, dtype)  # type: ignore[union-attr]
            value = self._of_all(value)[chosen]
            self._block._memory.store(address + np.uint64(k * size), value, chosen)

    def _call(self, name: tuple[str, ...], operands: tuple[str, ...], chosen: Array) -> None:
        returned, function, given = operands
        passed = [self._outgoing.get(name) for name in re.findall(r"\w+", given)]  # None where nobody looks at it
        self._outgoing = {returned.strip("()"): self._block.call(function, passed, chosen)}


def _high(a: Any, b: Any) -> Any:
    """The upper 64 bits of a product, by halves of 32 bits."""
    a, b = np.asarray(a), np.asarray(b)
    ua, ub, half, low = a.view(np.uint64), b.view(np.uint64), np.uint64(32), np.uint64(0xFFFFFFFF)
    a0, a1, b0, b1 = ua & low, ua >> half, ub & low, ub >> half
    middle = a1 * b0 + (a0 * b0 >> half)
    high = a1 * b1 + (middle >> half) + (a0 * b1 + (middle & low) >> half)
    if a.dtype == np.int64:  # a negative number is read as itself plus 2^64
        high = high - np.where(a < 0, ub, 0) - np.where(b < 0, ua, 0)
    return high.view(a.dtype)


def _quotient(a: Any, b: Any) -> Any:
    """Towards zero; by zero, anything, as only threads divide so that do not care."""
    b = np.where(np.equal(b, 0), np.ones_like(b), b)
    quotient = a // b
    return quotient + ((a % b != 0) & ((a < 0) != (b < 0))).astype(quotient.dtype)


_ROUNDED = {"add", "sub", "mul", "div", "fma", "sqrt", "rcp"}
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "not": np.invert, "neg": np.negative, "min": np.minimum, "max": np.maximum, "fma": fma, "sqrt": np.sqrt,
    "mul.lo": np.multiply, "mul.hi": _high, "mul.rn": np.multiply, "div": _quotient, "div.rn": np.divide,
    "rcp": lambda a: np.float32(1.0) / a,
}  # fmt: skip
