"""Folds by a kernel; that they are right is checked with the other kernels, in test_kernels."""

from __future__ import annotations

import kernel_checks
import pytest
import torch

from lozo_bench.engine import fold_kernel
from lozo_bench.engine.fold import Folder
from lozo_bench.randomness.draws import Draws
from lozo_bench.randomness.kernels import HAS_TRITON

NEEDS_TRITON = pytest.mark.skipif(not HAS_TRITON, reason="needs the package triton")


@NEEDS_TRITON
@pytest.mark.parametrize(
    ("arch", "bfloat", "aligned"), [(80, True, True), (90, False, True), (90, True, False)]
)
def test_the_kernel_stays_in_registers_and_rounds_every_operation(
    tmp_path, monkeypatch, arch, bfloat, aligned
):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    fixed = {"STOCHASTIC": True, "BFLOAT": bfloat, "ALIGNED": aligned, "COLUMNS": 128}
    fixed["ROWS"] = fold_kernel._rows(aligned)
    code = kernel_checks.compiled(fold_kernel._fold, ["*i16", "*fp32", "*fp32"], fixed, arch)
    kernel_checks.check_rounding(code)
    assert (code.counts["st.global.v2.b32"] > 0) == aligned  # four neighbors at once


@NEEDS_TRITON
def test_the_kernel_is_compiled_once_for_each_dtype():
    W = torch.zeros(64, 64, dtype=torch.bfloat16)
    with kernel_checks.variants() as found, kernel_checks.BY_FOLD_KERNEL:
        for step in (0, 1, 16):
            folder = Folder("stochastic", Draws(step))
            for m, n, rank in ((64, 64, 1), (1, 4, 16), (16, 8, 3)):
                for name in ("a", "b"):
                    part = W.view(-1)[: m * n].view(m, n)
                    folder.fold(
                        name, part, torch.ones(m, rank), torch.ones(n, rank), 1.0 - step / 32
                    )
    assert len(found) == 1


def test_columns_that_lie_next_to_each_other_are_not_copied():
    L, V = torch.randn(3, 5).T, torch.randn(3, 7).T
    left, right = fold_kernel._columns(L, V)
    assert (left.data_ptr(), right.data_ptr()) == (L.data_ptr(), V.data_ptr())
    for a, b in ((L.contiguous(), V), (L.half(), V.double())):
        left, right = fold_kernel._columns(a, b)
        assert left.stride(1) == right.stride(1) == 1
        assert torch.equal(left, a.T.float())
        assert torch.equal(right, b.T.float())


def test_a_kernel_folds_only_half_precision_on_a_gpu():
    assert not fold_kernel.has_fold_kernel(torch.zeros(2, 3, dtype=torch.bfloat16))
