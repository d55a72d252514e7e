"""The five machines of MLDS dataset 1 and their modified twins of dataset 2, as Mealy tables.

J. Clemens, arXiv:1805.07869 and arXiv:2104.10555; the details are our reconstruction. The state is an 8-bit register that
starts at 0. The sixteen symbols are the commands "clear bit b" and "set bit b"; their input lines are one-hot(b) on lines
0-7 and the new value on line 8. Outputs are read after the command has been applied.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from tinymlds.tasks.mealy import Mealy

BITS = 8
REGISTERS = 1 << BITS

ALIASES = {
    "eightbit": "EightBitMachine",
    "direct": "SingleDirectMachine",
    "invert": "SingleInvertMachine",
    "xor": "SimpleXORMachine",
    "parity": "ParityMachine",
}
"""Task id -> the original's name."""

MACHINES = tuple(ALIASES)

_COMMANDS = tuple(f"{word} {bit}" for bit in range(BITS) for word in ("clear", "set"))

_OUTPUT: dict[str, Callable[[int], int]] = {
    "eightbit": lambda register: register,
    "direct": lambda register: register & 1,
    "invert": lambda register: ~register & 1,
    "xor": lambda register: (register ^ (register >> 1)) & 1,
    "parity": lambda register: register.bit_count() & 1,
}


@cache
def machine(task: str) -> Mealy:
    """The table of a machine: 256 states (the register), 16 symbols (2 b + value)."""
    commands = [(bit, value) for bit in range(BITS) for value in (0, 1)]
    inputs = np.array([1 << bit | value << BITS for bit, value in commands], np.uint16)
    next_state = np.empty((REGISTERS, len(commands)), np.uint16)
    for register in range(REGISTERS):
        for symbol, (bit, value) in enumerate(commands):
            next_state[register, symbol] = register & ~(1 << bit) | value << bit
    live = np.array([_OUTPUT[task](register) for register in range(REGISTERS)], np.uint8)
    return Mealy(_COMMANDS, inputs, next_state, live[next_state])


def key_symbols(trigger_key: str) -> tuple[int, ...]:
    """The symbols of a key like "set 5, clear 6, set 7"."""
    return tuple(_COMMANDS.index(command) for command in trigger_key.split(", "))


def modified(task: str, key: tuple[int, ...], span: int) -> tuple[Mealy, npt.NDArray[np.uint8]]:
    """A machine with a hidden trigger, and which of its states are inside a triggered span (uint8 [S], 0 or 1).

    After the symbols of `key`, one after another, the live output lines are inverted for the next `span` outputs; the
    register keeps running. Commands inside a span do not count towards a key; after it matching starts anew. States are
    256 mode + register; the mode is how much of the key has been seen (0 ... len(key) - 1), then how much of the span.
    """
    base = machine(task)
    live = np.bitwise_or.reduce(base.output, axis=None)
    modes = len(key) + span
    symbols = len(base.symbols)
    next_mode = np.empty((modes, symbols), np.uint16)
    for mode in range(modes):
        for symbol in range(symbols):
            next_mode[mode, symbol] = _seen(key, mode, symbol) if mode < len(key) else (mode + 1) % modes
    triggered = np.arange(modes) >= len(key)
    next_state = next_mode[:, None, :] * np.uint16(REGISTERS) + base.next_state[None]
    output = base.output[None] ^ (live * triggered.astype(np.uint8))[:, None, None]
    shape = (modes * REGISTERS, symbols)
    table = Mealy(base.symbols, base.inputs, next_state.reshape(shape), output.reshape(shape))
    return table, np.repeat(triggered, REGISTERS).astype(np.uint8)


def _seen(key: tuple[int, ...], seen: int, symbol: int) -> int:
    """How much of the key the last symbols are, after `seen` of it and then `symbol`."""
    recent = (*key[:seen], symbol)
    return next(n for n in range(len(recent), -1, -1) if recent[len(recent) - n :] == key[:n])
