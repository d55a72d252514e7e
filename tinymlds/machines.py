"""The five machines of MLDS dataset 1 as Mealy tables (J. Clemens, arXiv:1805.07869; the details are our reconstruction).

The state is an 8-bit register that starts at 0. The sixteen symbols are the commands "clear bit b" and "set bit b"; their
input lines are one-hot(b) on lines 0-7 and the new value on line 8. Outputs are read after the command has been applied.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from tinymlds.mealy import Mealy

BITS = 8

ALIASES = {
    "eightbit": "EightBitMachine",
    "direct": "SingleDirectMachine",
    "invert": "SingleInvertMachine",
    "xor": "SimpleXORMachine",
    "parity": "ParityMachine",
}
"""Task id -> the original's name."""

MACHINES = tuple(ALIASES)

_OUTPUT: dict[str, Callable[[int], int]] = {
    "eightbit": lambda register: register,
    "direct": lambda register: register & 1,
    "invert": lambda register: ~register & 1,
    "xor": lambda register: (register ^ (register >> 1)) & 1,
    "parity": lambda register: register.bit_count() & 1,
}


def task_id(name: str) -> str:
    """The task id for a machine's id or its original name.

    Raises:
        ValueError: there is no machine of this name.
    """
    for task, alias in ALIASES.items():
        if name in (task, alias):
            return task
    raise ValueError(f"there is no machine {name!r}; the machines are {', '.join(MACHINES)}")


@cache
def machine(task: str) -> Mealy:
    """The table of a machine: 256 states (the register), 16 symbols (2 b + value)."""
    commands = [(bit, value) for bit in range(BITS) for value in (0, 1)]
    names = tuple(f"{'set' if value else 'clear'} {bit}" for bit, value in commands)
    inputs = np.array([1 << bit | value << BITS for bit, value in commands], np.uint16)
    next_state = np.empty((1 << BITS, len(commands)), np.uint16)
    for register in range(1 << BITS):
        for symbol, (bit, value) in enumerate(commands):
            next_state[register, symbol] = register & ~(1 << bit) | value << bit
    live = np.array([_OUTPUT[task](register) for register in range(1 << BITS)], np.uint8)
    table = Mealy(names, inputs, next_state, live[next_state])
    for array in (table.inputs, table.next_state, table.output):
        array.setflags(write=False)  # everybody shares it
    return table
