"""Random numbers: published vectors, independence of what they must not depend on, and statistics with fixed seeds.

Chi-square statistics are compared with `chi_square_limit`, which a fair generator exceeds once in a million tests. Seeds
are fixed, so a test that passes once passes always.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinymlds.kernels import rng

KEY = rng.stream_key(0, "xor")
WORD = st.integers(0, 2**32 - 1)


def chi_square(counts: np.ndarray) -> float:
    """Statistic of counts that should all be equal."""
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2).sum() / expected)


def chi_square_limit(freedom: int) -> float:
    """Upper 1e-6 quantile of chi-square: Wilson and Hilferty (1931), with 4.753 of the normal distribution."""
    spread = 2.0 / (9.0 * freedom)
    return freedom * (1.0 - spread + 4.753 * math.sqrt(spread)) ** 3


def test_chi_square_tells_fair_from_unfair() -> None:
    generator = np.random.default_rng(0)
    fair = np.bincount(generator.integers(0, 16, 16_000), minlength=16)
    assert chi_square(fair) < chi_square_limit(15) < chi_square(fair + 400 * (np.arange(16) == 3))


# ------------------------------------------------------------------ Philox

KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
"""Counter, key and result of philox4x32-10 (kat_vectors of the authors' Random123)."""


def hex_words(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_known_answers(counter: str, key: str, expected: str) -> None:
    k0, k1 = hex_words(key)
    arrays = tuple(np.array([word], np.uint64) for word in hex_words(counter))
    assert tuple(int(word[0]) for word in rng.philox(arrays, (k0, k1))) == hex_words(expected)


# ------------------------------------------------------------------ streams


def test_words_are_philox_of_position_epoch_index_and_purpose() -> None:
    counter = tuple(np.array([word], np.uint64) for word in (2, 7, 5, 3))  # words 8 to 11 of epoch 7, index 5, purpose 3
    expected = [int(word[0]) for word in rng.philox(counter, KEY)]
    assert rng.words(KEY, 3, 5, 12, epoch=7)[8:].tolist() == expected


@given(st.integers(0, 40), st.integers(0, 40))
def test_words_have_the_prefix_property(a: int, b: int) -> None:
    short, long = (rng.words(KEY, rng.ORDER, 3, count) for count in sorted((a, b)))
    assert short.size == min(a, b)
    assert short.tolist() == long[: short.size].tolist()


def test_streams_differ_in_every_part_of_their_name() -> None:
    streams = [
        rng.words(KEY, 1, 2, 64, epoch=3),
        rng.words(rng.stream_key(1, "xor"), 1, 2, 64, epoch=3),
        rng.words(rng.stream_key(0, "parity"), 1, 2, 64, epoch=3),
        rng.words((KEY[0] ^ 1, KEY[1]), 1, 2, 64, epoch=3),
        rng.words((KEY[0], KEY[1] ^ 1), 1, 2, 64, epoch=3),
        rng.words(KEY, 0, 2, 64, epoch=3),
        rng.words(KEY, 1, 3, 64, epoch=3),
        rng.words(KEY, 1, 2, 64, epoch=4),
    ]
    every_word = np.concatenate(streams)
    assert np.unique(every_word).size == every_word.size  # 512 words of 32 bits: a chance repetition has odds of 3e-5


def test_stream_key_is_the_documented_hash() -> None:
    """The output of `printf tinymlds:0:xor | sha256sum` starts with these eight bytes."""
    first_bytes = bytes.fromhex("1e5f7ce61786c1d1")
    assert np.frombuffer(first_bytes, "<u4").tolist() == list(rng.stream_key(0, "xor"))


def test_first_words_are_the_first_words() -> None:
    expected = [int(rng.words(KEY, rng.SPLIT, index, 1)[0]) for index in range(5, 25)]
    assert rng.first_words(KEY, rng.SPLIT, range(5, 25)).tolist() == expected


def test_bits_are_balanced() -> None:
    """Each of the 32 bits of 100,000 words: 1 in half of them, within 5 standard deviations (odds of 2e-5 over all)."""
    words = rng.words(KEY, rng.INITIAL_WEIGHTS, 0, 100_000)
    ones = ((words[:, None] >> np.arange(32, dtype=np.uint32)) & 1).sum(axis=0, dtype=np.int64)
    assert np.abs(ones - 50_000).max() <= 5.0 * math.sqrt(100_000 / 4)


# ------------------------------------------------------------------ below


@given(st.integers(1, 2**32 - 1))
def test_below_stays_in_range(bound: int) -> None:
    extremes = np.array([0, 1, 2**31, 2**32 - 1], np.uint32)
    result = rng.below(extremes, bound)
    assert result.tolist() == [int(word) * bound >> 32 for word in extremes]
    assert int(result.max()) == bound - 1


@pytest.mark.parametrize("bound", [2, 3, 16, 100])
def test_below_is_uniform(bound: int) -> None:
    draws = rng.below(rng.words(KEY, rng.TRAIN_SEQUENCES, 0, 1000 * bound), bound)
    assert chi_square(np.bincount(draws, minlength=bound)) < chi_square_limit(bound - 1)


def test_successive_draws_are_independent() -> None:
    """All pairs of successive symbols are equally frequent: what sequences of a task are made of."""
    draws = rng.below(rng.words(KEY, rng.TRAIN_SEQUENCES, 0, 100_000), 16)
    pairs = np.bincount(draws[::2] * 16 + draws[1::2], minlength=256)
    assert chi_square(pairs) < chi_square_limit(255)


# ------------------------------------------------------------------ permutations


def assert_is_permutation(order: np.ndarray, size: int) -> None:
    assert order.dtype == np.uint32
    assert np.sort(order).tolist() == list(range(size))


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 1000, 16384])
def test_permutation_is_one(size: int) -> None:
    assert_is_permutation(rng.permutation(KEY, 3, 1, size), size)


@given(
    st.integers(1, 5000), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.tuples(*[st.integers(0, 2**32 - 1)] * 2)
)
def test_permutation_is_one_for_any_stream(size: int, index: int, epoch: int, key: rng.Key) -> None:
    assert_is_permutation(rng.permutation(key, index, epoch, size), size)


def test_permutation_differs_by_index_epoch_and_key() -> None:
    """Two random permutations agree in one place on average (Poisson); in ten or more with odds of 1e-7."""
    ours = rng.permutation(KEY, 3, 1, 1000)
    others = [
        rng.permutation(KEY, 4, 1, 1000),
        rng.permutation(KEY, 3, 2, 1000),
        rng.permutation(rng.stream_key(0, "parity"), 3, 1, 1000),
    ]
    for other in others:
        assert (ours == other).sum() < 10
    assert ours.tolist() == rng.permutation(KEY, 3, 1, 1000).tolist()


# Sizes of 16 and more: what a recipe can ask for. (Of 5 to 7, a Feistel network with halves of one and two bits makes some
# orders 3 % more frequent than others.) A value stands in a given place, or after another given value, with probability
# 1 / size, and both tables have (size - 1)^2 degrees of freedom.
SIZES = [16, 17, 48]
ORDERS = 4000


@pytest.mark.parametrize("size", SIZES)
def test_places_in_permutations_of_networks_are_uniform(size: int) -> None:
    """Every value is equally often in every place. The statistic has mean size (size - 1), as a place holds one value."""
    orders = np.array([rng.permutation(KEY, index, 1, size) for index in range(ORDERS)])
    counts = np.bincount((orders + size * np.arange(size)).reshape(-1), minlength=size**2)
    assert chi_square(counts) * (size - 1) / size < chi_square_limit((size - 1) ** 2)


@pytest.mark.parametrize("size", SIZES)
def test_neighbours_in_permutations_of_epochs_are_uniform(size: int) -> None:
    """Every ordered pair of different values follows one another equally often. The statistic has mean (size - 1)^2."""
    orders = np.array([rng.permutation(KEY, 7, epoch, size) for epoch in range(1, ORDERS + 1)])
    pairs = np.bincount((orders[:, :-1] * size + orders[:, 1:]).reshape(-1), minlength=size**2)
    same = np.arange(size) * (size + 1)
    assert pairs[same].sum() == 0
    assert chi_square(np.delete(pairs, same)) < chi_square_limit((size - 1) ** 2)


def test_large_permutation_has_no_trend() -> None:
    """A whole epoch: the distance between neighbours and the correlation of place and value are those of chance.

    |a - b| of two random values has mean size / 3 and standard deviation size / sqrt(18); a rank correlation has standard
    deviation 1 / sqrt(size - 1). Five standard deviations each.
    """
    size = 16384
    order = rng.permutation(KEY, 0, 1, size).astype(np.float64)
    jump = np.abs(np.diff(order)).mean()
    assert abs(jump - size / 3) < 5.0 * size / math.sqrt(18.0 * size)
    assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 5.0 / math.sqrt(size - 1)
