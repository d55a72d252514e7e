"""Random numbers by counter, not by order: any number can be had without those before it.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) in integer
arithmetic, and a pseudo-random permutation from a Feistel network, in which each place is computed on its own (the idea
of Mitchell, Stokes, Frank and Holmes, "Bandwidth-Optimal Random Shuffling for GPUs", ACM TOPC 2022).

A stream is (key, purpose, index): the key comes from the seed and the task, `purpose` is one of the constants below,
`index` is the network. Counter words: position / 4, epoch, index, purpose.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

INITIAL_WEIGHTS = 0
ORDER = 1
TRAIN_SEQUENCES = 2
VALIDATION_SEQUENCES = 3
SPLIT = 4
FRESH_SEQUENCES = 5
TABLES = 6
SYMMETRIES = 7

Key = tuple[int, int]
Words32 = npt.NDArray[np.uint32]

FEISTEL_ROUNDS = 8

# The types matter: on a GPU an int64 beside a uint64 would make a float64 of both.
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
_MULTIPLIER0, _MULTIPLIER1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL0, _WEYL1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW32, _SIXTEEN, _THIRTEEN = np.uint32(0xFFFFFFFF), np.uint32(16), np.uint32(13)
_MIX0, _MIX1 = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)


def stream_key(seed: int, name: str) -> Key:
    """The two 32-bit words of the key for a seed and a name (a task id, or "" for what all tasks share)."""
    digest = hashlib.sha256(f"tinymlds:{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


class Generator(NamedTuple):
    """The integer arithmetic, compiled for one target; `bind` makes it. Everything is an unsigned integer of 64 bits or, in
    `feistel`, also of 32 (scalars or NumPy arrays)."""

    philox: Any
    """philox(counter, key): Philox4x32-10, four 32-bit words from a counter of four and a key of two, all in uint64."""
    feistel: Any
    """feistel(x, round_keys, low_bits, high_mask, low_mask): one pass of the permutation; see `permutation`."""


def bind(jit: Callable[[Callable[..., Any]], Any]) -> Generator:
    """Compile the arithmetic with the decorator `jit` of a target."""

    @jit
    def philox(counter: Any, key: Any) -> Any:
        c0, c1, c2, c3 = counter
        k0, k1 = key
        for _ in range(10):
            product0, product1 = c0 * _MULTIPLIER0, c2 * _MULTIPLIER1
            c0, c1, c2, c3 = (
                (product1 >> _SHIFT) ^ c1 ^ k0,
                product1 & _LOW,
                (product0 >> _SHIFT) ^ c3 ^ k1,
                product0 & _LOW,
            )
            k0, k1 = (k0 + _WEYL0) & _LOW, (k1 + _WEYL1) & _LOW
        return c0, c1, c2, c3

    @jit
    def mix(x: Any) -> Any:
        """The finaliser of MurmurHash3: every input bit reaches every output bit."""
        x = x ^ (x >> _SIXTEEN)
        x = (x * _MIX0) & _LOW32
        x = x ^ (x >> _THIRTEEN)
        x = (x * _MIX1) & _LOW32
        return x ^ (x >> _SIXTEEN)

    @jit
    def feistel(x: Any, round_keys: Any, low_bits: Any, high_mask: Any, low_mask: Any) -> Any:
        high, low = x >> low_bits, x & low_mask
        for k in range(0, FEISTEL_ROUNDS, 2):
            high = high ^ (mix(low ^ round_keys[k]) & high_mask)
            low = low ^ (mix(high ^ round_keys[k + 1]) & low_mask)
        return (high << low_bits) | low

    return Generator(philox, feistel)


_HOST = bind(lambda function: function)


def philox(counter: tuple[Any, ...], key: Key) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10: four 32-bit words from a counter of four, all in uint64 (scalars or arrays), and a key of two."""
    words4: tuple[Any, Any, Any, Any] = _HOST.philox(counter, (np.uint64(key[0]), np.uint64(key[1])))
    return words4


def words(key: Key, purpose: int, index: int, count: int, epoch: int = 0) -> Words32:
    """The first `count` 32-bit words of a stream, uint32 [count]."""
    position = np.arange(-(-count // 4), dtype=np.uint64)
    counter = (position, *(np.full_like(position, value) for value in (epoch, index, purpose)))
    return np.stack(philox(counter, key), axis=1).astype(np.uint32).reshape(-1)[:count]


def first_words(key: Key, purpose: int, indices: range) -> Words32:
    """The first word of the streams of many indices at once, uint32 [len(indices)]."""
    index = np.arange(indices.start, indices.stop, indices.step, dtype=np.uint64)
    counter = (np.zeros_like(index), np.zeros_like(index), index, np.full_like(index, purpose))
    return np.asarray(philox(counter, key)[0], np.uint32)


def below(random_words: Words32, bound: int) -> Words32:
    """Integers in [0, bound) from 32-bit words by multiplication; each is off its fair share by at most bound / 2^32."""
    return ((random_words.astype(np.uint64) * np.uint64(bound)) >> _SHIFT).astype(np.uint32)


def permutation(key: Key, index: int, epoch: int, size: int) -> Words32:
    """The order in which network `index` sees `size` sequences in an epoch: a permutation of 0 ... size - 1, uint32.

    A Feistel network of 8 rounds maps the numbers below the next power of two one to one; a number that lands at `size`
    or above goes through it again until it lands below (cycle walking), so the result is a permutation of any size.
    """
    low_bits, high_mask, low_mask = (np.uint32(number) for number in halves(size))
    round_keys = words(key, ORDER, index, FEISTEL_ROUNDS, epoch)
    result = _HOST.feistel(np.arange(size, dtype=np.uint32), round_keys, low_bits, high_mask, low_mask)
    while (outside := np.flatnonzero(result >= size)).size:
        result[outside] = _HOST.feistel(result[outside], round_keys, low_bits, high_mask, low_mask)
    return np.asarray(result)


def halves(size: int) -> tuple[int, int, int]:
    """How a permutation of `size` cuts a number into two halves: bits of the low one, masks of the high and the low one."""
    bits = max(2, (size - 1).bit_length())
    low_bits = bits // 2
    return low_bits, (1 << (bits - low_bits)) - 1, (1 << low_bits) - 1
