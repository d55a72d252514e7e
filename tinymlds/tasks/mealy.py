"""Mealy tables: every task is one. Simulate, minimise, compare, and sample input sequences.

A table has S states and A symbols. It starts in state 0; on a symbol it emits the output lines of (state, symbol) and
moves on. Lines are the bits of a word: bit i is line i.
"""

import hashlib
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinymlds.kernels import rng

INPUT_LINES = 9
OUTPUT_LINES = 8

Symbols = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Mealy:
    """A finite-state machine with outputs on its transitions."""

    symbols: tuple[str, ...]
    """A name for each of the A symbols."""
    inputs: npt.NDArray[np.uint16]
    """[A]: the nine input lines of each symbol."""
    next_state: npt.NDArray[np.uint16]
    """[S, A]."""
    output: npt.NDArray[np.uint8]
    """[S, A]: the eight output lines, read after the symbol has been applied."""

    def __post_init__(self) -> None:
        states, symbols = self.next_state.shape
        if self.output.shape != (states, symbols) or self.inputs.shape != (symbols,) or len(self.symbols) != symbols:
            raise ValueError("a Mealy table needs next_state and output [S, A] and inputs and symbols [A]")
        if symbols > 256:
            raise ValueError(f"a Mealy table has at most 256 symbols, not {symbols}: sequences hold them as uint8")
        if self.next_state.max() >= states or self.inputs.max() >= 1 << INPUT_LINES:
            raise ValueError("a Mealy table leads to a state that it does not have, or uses more than nine input lines")

    @property
    def states(self) -> int:
        """Number of states S."""
        return int(self.next_state.shape[0])

    def simulate(self, sequences: Symbols) -> npt.NDArray[np.uint8]:
        """Output lines uint8 [N, T] for symbols uint8 [N, T], each sequence from state 0."""
        return self.output[self.trace(sequences), sequences]

    def trace(self, sequences: Symbols) -> npt.NDArray[np.uint16]:
        """The state before each symbol, uint16 [N, T], for symbols uint8 [N, T]."""
        state = np.zeros(sequences.shape, np.uint16)
        for t in range(sequences.shape[1] - 1):
            state[:, t + 1] = self.next_state[state[:, t], sequences[:, t]]
        return state

    def sample(self, key: rng.Key, purpose: int, count: int, steps: int) -> Symbols:
        """`count` sequences of independent, equally likely symbols, uint8 [count, steps]."""
        draws = rng.below(rng.words(key, purpose, 0, count * steps), len(self.symbols))
        return draws.astype(np.uint8).reshape(count, steps)

    def sha256(self) -> str:
        """Digest of the table: little-endian sizes S and A, inputs, next_state, output (row by row)."""
        digest = hashlib.sha256(np.array(self.next_state.shape, "<u4").tobytes())
        digest.update(self.inputs.astype("<u2").tobytes())
        digest.update(self.next_state.astype("<u2").tobytes())
        digest.update(self.output.tobytes())
        return digest.hexdigest()

    def to_dot(self, name: str) -> str:
        """The machine as a DOT graph, in the dialect of automata learning tools: s0 is the initial state, labels are
        input/output, and an output is y and its lines as bits, line 0 first (bits alone would be read as a number).
        """
        edges = [
            f'    s{state} -> s{self.next_state[state, k]} [label="{symbol}/{self._bits(state, k)}"];'
            for state in range(self.states)
            for k, symbol in enumerate(self.symbols)
        ]
        states = [f'    s{state} [label="s{state}"];' for state in range(self.states)]
        start = ['    __start0 [shape=none, label=""];', "    __start0 -> s0;"]
        return "\n".join([f"digraph {name} {{", *states, *edges, *start, "}", ""])

    def state_setup(self) -> dict[str, dict[str, list[str]]]:
        """The machine as {state: {symbol: [output, next state]}}: AALpy's state setup, once lists are tuples there."""
        return {
            f"s{state}": {
                symbol: [self._bits(state, k), f"s{self.next_state[state, k]}"] for k, symbol in enumerate(self.symbols)
            }
            for state in range(self.states)
        }

    def _bits(self, state: int, symbol: int) -> str:
        return "y" + format(int(self.output[state, symbol]), f"0{OUTPUT_LINES}b")[::-1]

    def minimise(self) -> "Mealy":
        """The smallest machine with the same behaviour: reachable states only, equivalent ones merged (Moore 1956).

        States are numbered in the order in which a breadth-first search from state 0 meets them.
        """
        _, block = np.unique(self.output, axis=0, return_inverse=True)
        block = block.reshape(-1)
        while True:
            signature = np.concatenate([block[:, None], block[self.next_state]], axis=1)
            _, finer = np.unique(signature, axis=0, return_inverse=True)
            if finer.max() == block.max():
                break
            block = finer.reshape(-1)
        member = {int(block[0]): 0}  # block -> a state in it, in order of discovery
        queue = deque([0])
        while queue:
            for successor in self.next_state[queue.popleft()]:
                if int(block[successor]) not in member:
                    member[int(block[successor])] = int(successor)
                    queue.append(int(successor))
        number = {b: k for k, b in enumerate(member)}
        states = list(member.values())
        next_state = [[number[int(block[s])] for s in self.next_state[state]] for state in states]
        return Mealy(self.symbols, self.inputs, np.array(next_state, np.uint16), self.output[states])

    def difference(self, other: "Mealy") -> list[int] | None:
        """A shortest sequence of symbols on which the outputs differ, or None if the machines are equivalent.

        Raises:
            ValueError: the machines have different alphabets.
        """
        if self.symbols != other.symbols:
            raise ValueError("only machines with the same symbols can be compared")
        words: dict[tuple[int, int], list[int]] = {(0, 0): []}
        queue = deque(words)
        while queue:
            pair = queue.popleft()
            for symbol in range(len(self.symbols)):
                word = [*words[pair], symbol]
                if self.output[pair[0], symbol] != other.output[pair[1], symbol]:
                    return word
                successor = int(self.next_state[pair[0], symbol]), int(other.next_state[pair[1], symbol])
                if successor not in words:
                    words[successor] = word
                    queue.append(successor)
        return None


def lines(words: npt.NDArray[np.integer], count: int) -> npt.NDArray[np.float32]:
    """Bits as float32 lines: [...] -> [..., count], line i from bit i."""
    return ((words[..., None] >> np.arange(count)) & 1).astype(np.float32)
