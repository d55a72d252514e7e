"""Random numbers by counter, not by order: any number can be had without those before it.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) in integer
arithmetic, and a pseudo-random permutation from a Feistel network, in which each place is computed on its own (the idea
of Mitchell, Stokes, Frank and Holmes, "Bandwidth-Optimal Random Shuffling for GPUs", ACM TOPC 2022).

A stream is (key, purpose, index): the key comes from the seed and the task, `purpose` is one of the constants below,
`index` is the network. Counter words: position / 4, epoch, index, purpose.
"""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

INITIAL_WEIGHTS = 0
ORDER = 1
TRAIN_SEQUENCES = 2
VALIDATION_SEQUENCES = 3
SPLIT = 4
FRESH_SEQUENCES = 5
TABLES = 6

Key = tuple[int, int]
Words32 = npt.NDArray[np.uint32]

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_FEISTEL_ROUNDS = 8


def stream_key(seed: int, name: str) -> Key:
    """The two 32-bit words of the key for a seed and a name (a task id, or "" for what all tasks share)."""
    digest = hashlib.sha256(f"tinymlds:{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def philox(counter: tuple[Any, ...], key: Key) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10: four 32-bit words from a counter of four and a key of two. All in uint64 (scalars or arrays)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def words(key: Key, purpose: int, index: int, count: int, epoch: int = 0) -> Words32:
    """The first `count` 32-bit words of a stream, uint32 [count]."""
    position = np.arange(-(-count // 4), dtype=np.uint64)
    counter = (position, *(np.full_like(position, value) for value in (epoch, index, purpose)))
    return np.stack(philox(counter, key), axis=1).astype(np.uint32).reshape(-1)[:count]


def first_words(key: Key, purpose: int, indices: range) -> Words32:
    """The first word of the streams of many indices at once, uint32 [len(indices)]."""
    index = np.arange(indices.start, indices.stop, dtype=np.uint64)
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
    bits = max(2, (size - 1).bit_length())
    low_bits = bits // 2
    masks = np.uint32((1 << (bits - low_bits)) - 1), np.uint32((1 << low_bits) - 1)
    round_keys = words(key, ORDER, index, _FEISTEL_ROUNDS, epoch)

    def network(x: Words32) -> Words32:
        halves = [x >> np.uint32(low_bits), x & masks[1]]
        for k, round_key in enumerate(round_keys):
            target = k % 2
            halves[target] ^= _mix(halves[1 - target] ^ round_key) & masks[target]
        return (halves[0] << np.uint32(low_bits)) | halves[1]

    result = network(np.arange(size, dtype=np.uint32))
    while (outside := np.flatnonzero(result >= size)).size:
        result[outside] = network(result[outside])
    return result


def _mix(x: Words32) -> Words32:
    """The finaliser of MurmurHash3: every input bit reaches every output bit."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x85EBCA6B)
    x = x ^ (x >> np.uint32(13))
    x = x * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))
