"""The generator equals the published vectors, the normals equal the textbook formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lozo_bench.randomness.philox import normals, philox

# The known-answer vectors of Random123 for philox4x32-10: counter, key, output.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_gives_the_published_outputs(counter, key, output):
    words = philox(
        tuple(torch.tensor([word]) for word in counter), tuple(torch.tensor([word]) for word in key)
    )
    assert tuple(int(word) for word in words) == output


def test_normals_equal_the_box_muller_formula():
    rng = np.random.Generator(np.random.PCG64(7))
    words = [rng.integers(0, 2**32, size=5000) for _ in range(4)]
    words[0][:3] = [0, 2**32 - 1, 2**31]  # the extreme and the middle radii
    words[1][:4] = [0, 2**30, 2**31, 3 * 2**30]  # the borders between quarter turns
    ours = normals(tuple(torch.from_numpy(word) for word in words)).numpy()
    for pair in (0, 1):
        radius = np.sqrt(-2 * np.log((words[2 * pair] + 0.5) / 2**32))
        quarter, remainder = np.divmod(words[2 * pair + 1], 2**30)
        angle = math.pi / 2 * (quarter + (remainder + 0.5) / 2**30 - 0.5)
        np.testing.assert_allclose(ours[:, 2 * pair], radius * np.cos(angle), atol=1e-12)
        np.testing.assert_allclose(ours[:, 2 * pair + 1], radius * np.sin(angle), atol=1e-12)


def test_normals_are_standard_normal():
    index = torch.arange(50_000)
    zero = torch.zeros_like(index)
    values = normals(philox((index, zero, zero, zero), (zero + 11, zero + 12))).flatten().numpy()
    assert stats.kstest(values, "norm").pvalue > 0.01
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01
    assert stats.kurtosis(values) == pytest.approx(0, abs=0.05)
