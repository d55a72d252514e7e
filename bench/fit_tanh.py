"""How the coefficients of tanh in `tinymlds/kernels/activations.py` were found: `python bench/fit_tanh.py`.

tanh(x) ~ x N(x^2) / D(x^2) on [0, limit], both polynomials of degree 4 with constant term 1 (nearly the least relative
error). The linearised rational fit N - f D = 0, with f = tanh(x) / x, is solved again and again by least squares: each
row is divided by the last D (Sanathanan and Koerner 1963), and weighted up where the error is large (Lawson 1961).
Then the coefficients are rounded to float32, and the error of the compiled cell is measured over every float32.
"""

import numpy as np
from numba import njit
from numpy.polynomial import chebyshev, polynomial

from tinymlds.kernels import LANES
from tinymlds.kernels.activations import TANH_DENOMINATOR, TANH_LIMIT, TANH_NUMERATOR
from tinymlds.kernels.block import MATH
from tinymlds.kernels.lanes import load, store

DEGREE = 4


def fit(limit: float, iterations: int = 200, points: int = 1500) -> tuple[np.ndarray, np.ndarray, float]:
    """Coefficients of N and D in powers of x^2 (float64) and the largest relative error of the fit."""
    x = limit * (1 - np.cos((np.arange(points) + 0.5) / points * np.pi)) / 2
    f = np.tanh(x) / x
    basis = chebyshev.chebvander(2 * (x / limit) ** 2 - 1, DEGREE)
    weight, divisor, best = np.ones(points), np.ones(points), (np.inf, np.zeros(2 * DEGREE + 1))
    for iteration in range(iterations):
        scale = np.sqrt(weight) / divisor
        rows = np.concatenate([basis / f[:, None], -basis[:, 1:]], axis=1) * scale[:, None]
        norms = np.linalg.norm(rows, axis=0)
        solution = np.linalg.lstsq(rows / norms, scale, rcond=None)[0] / norms
        numerator = basis @ solution[: DEGREE + 1]
        divisor = 1 + basis[:, 1:] @ solution[DEGREE + 1 :]
        error = np.abs(numerator / divisor / f - 1)
        if error.max() < best[0]:
            best = (error.max(), solution)
        if iteration > 5:
            weight *= np.sqrt(error / error.max() + 0.02)
            weight /= weight.mean()
    error, solution = best
    top = _powers(solution[: DEGREE + 1], limit)
    bottom = _powers(np.concatenate([[1.0], solution[DEGREE + 1 :]]), limit)
    return top / bottom[0], bottom / bottom[0], error


def _powers(series: np.ndarray, limit: float) -> np.ndarray:
    """A Chebyshev series in 2 s / limit^2 - 1 as a polynomial in s."""
    result, power = np.zeros(1), np.ones(1)
    for coefficient in chebyshev.cheb2poly(series):
        result = polynomial.polyadd(result, coefficient * power)
        power = polynomial.polymul(power, np.array([-1.0, 2 / limit**2]))
    return result


_tanh = MATH.tanh


@njit
def _tanh_in_place(values):
    for start in range(0, values.size, LANES):
        store(values, start, _tanh(load(values, start)))


def measure(lowest: float = 2.0**-24, highest: float = 16.0) -> tuple[float, float, float]:
    """Largest absolute error, largest error in ulp, and largest value of the cell over every float32 in a range."""
    first, last = (int(np.float32(bound).view(np.uint32)) for bound in (lowest, highest))
    absolute, ulps, largest = 0.0, 0.0, 0.0
    for start in range(first, last, 1 << 22):
        x = np.arange(start, min(start + (1 << 22), last), dtype=np.uint32).view(np.float32)
        exact, got = np.tanh(x.astype(np.float64)), x.copy()
        _tanh_in_place(got)
        error = np.abs(got - exact)
        absolute, largest = max(absolute, error.max()), max(largest, got.max())
        ulps = max(ulps, (error / np.spacing(exact.astype(np.float32))).max())
    return absolute, ulps, largest


def main() -> None:
    top, bottom, error = fit(TANH_LIMIT)
    print(f"limit {TANH_LIMIT}: largest relative error of the fit {error:.1e}")
    top, bottom = top.astype(np.float32), bottom.astype(np.float32)
    print("numerator  ", ", ".join(map(str, top)))
    print("denominator", ", ".join(map(str, bottom)))
    same = np.array_equal(top, np.float32(TANH_NUMERATOR)) and np.array_equal(bottom, np.float32(TANH_DENOMINATOR))
    print("the same as in activations.py:", same)
    absolute, ulps, largest = measure()
    print(
        f"the cell, over every float32 from 2^-24 to 16: error <= {absolute:.2e}, {ulps:.2f} ulp; largest value {largest}"
    )


if __name__ == "__main__":
    main()
