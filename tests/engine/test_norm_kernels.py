"""Norms by a kernel; that they are right is checked with the other kernels, in test_kernels."""

from __future__ import annotations

import kernel_checks
import pytest
import torch

from lozo_bench.engine import norm_kernels
from lozo_bench.randomness.kernels import HAS_TRITON

NEEDS_TRITON = pytest.mark.skipif(not HAS_TRITON, reason="needs the package triton")


@NEEDS_TRITON
@pytest.mark.parametrize(
    ("arch", "pointer", "width"), [(80, "*fp32", 16384), (90, "*i16", 8192), (90, "*fp32", 16384)]
)
def test_a_row_of_every_length_stays_in_registers(tmp_path, monkeypatch, arch, pointer, width):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    bfloat = pointer == "*i16"  # the bits of the result
    warps = norm_kernels._warps(width)
    code = kernel_checks.compiled(
        norm_kernels._norm,
        [pointer, "*bf16" if bfloat else pointer, "*fp32", "*fp32", "i32", "i32", "i32"],
        {"CENTER": True, "BFLOAT": bfloat, "WIDTH": width},
        arch,
        num_warps=warps,
    )
    assert code.resources["STACK"] == code.resources["LOCAL"] == 0
    numbers = width // (32 * warps)  # of each thread; every load takes 16 bytes
    row, vectors = numbers * (2 if bfloat else 4) // 16, 2 * numbers * 4 // 16
    assert code.counts["ld.global.v4.b32"] == row + vectors


@NEEDS_TRITON
def test_the_kernel_is_compiled_once_for_each_dtype_and_length():
    x, vectors = torch.zeros(32, 64), torch.zeros(16, 64)
    with kernel_checks.variants() as found:
        for groups in (1, 2, 16):
            for rows in (groups, 32):
                for given in (vectors[:1], vectors[:groups]):
                    norm_kernels.layer_norm(x[:rows], given, given, groups, 1e-5 * rows)
    assert len(found) == 1


def test_a_kernel_takes_only_what_it_can_compute():
    assert not norm_kernels.has_norm_kernel(torch.zeros(2, 3))
    assert not norm_kernels.has_norm_kernel(torch.zeros(2, 3, device="meta"))


def test_no_rows_are_no_work():
    assert norm_kernels.layer_norm(torch.zeros(0, 4, 8), None, None, 2, 1e-5).shape == (0, 4, 8)
