"""Kernels give the bits of the torch code, in Triton's interpreter and on a GPU if any."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import kernel_checks
import pytest
import torch

from lozo_bench import engine, randomness
from lozo_bench.engine import kernels
from lozo_bench.engine.rows import Rows
from lozo_bench.errors import UserError
from lozo_bench.randomness import kernels as draw_kernels
from lozo_bench.randomness.draws import Draws

NEEDS_TRITON = pytest.mark.skipif(not kernels.HAS_TRITON, reason="needs the package triton")
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@NEEDS_TRITON
def test_the_kernels_give_the_bits_of_the_torch_code(tmp_path):
    tests = str(Path(kernel_checks.__file__).parent)
    code = f"""
import sys; sys.path.insert(0, {tests!r})
import kernel_checks
for case in kernel_checks.CASES: case("cpu")
"""
    subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "1"},
        check=True,
        timeout=120,
    )


@NEEDS_CUDA
@NEEDS_TRITON
@pytest.mark.parametrize("case", kernel_checks.CASES, ids=lambda case: case.__name__)
def test_a_gpu_gives_the_bits_of_the_torch_code(case):
    case("cuda:0")


@NEEDS_TRITON
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize(("pointer", "bits", "bfloat"), [("*fp64", 64, False), ("*i16", 16, True)])
def test_compiled_code_rounds_every_operation_correctly(
    tmp_path, monkeypatch, pointer, bits, bfloat, arch
):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    fixed = {"BITS": bits, "BFLOAT": bfloat, "COUNTERS": 256}
    code = kernel_checks.compiled(kernels._move_by_normals, [pointer], fixed, arch)
    kernel_checks.check_rounding(code)
    assert (
        code.counts["sqrt.rn.f64"] == 4
    )  # each thread computes two radii for each of two counters
    assert code.counts["div.rn.f64"] == 4
    ln2, half_of_pi = "0d3FE62E42FEFA39EF", "0d3E1921FB54442D18"  # float64 constants
    assert ln2 in code.ptx
    assert half_of_pi in code.ptx


@NEEDS_TRITON
def test_a_draw_is_compiled_once_for_each_dtype():
    for draw in (
        lambda n: Draws(n).normal("U", n, {"a": (n + 1,), "b": (n % 100, 2)}),
        lambda n: Draws(0).normal_range("U", n, f"{n}", n, 2 * n + 1),
        lambda n: Draws(0).uniform_range("U", n, f"{n}", n, 2 * n + 1),
    ):
        with kernel_checks.variants() as found, kernel_checks.BY_KERNELS:
            for n in (0, 1, 16, 3, 1000):
                draw(n)
        assert len(found) == 1


@NEEDS_TRITON
def test_factors_that_are_drawn_together_are_one_tensor_without_a_copy():
    shapes = {"a": (5, 2), "b": (16, 2), "c": (3, 2)}
    with kernel_checks.variants(), kernel_checks.BY_KERNELS:
        factors = Draws(0).normal("U", 1, shapes)
    joined = Rows({name: shape[0] for name, shape in shapes.items()}).join(factors)
    assert joined.data_ptr() == factors["a"].data_ptr()
    assert not joined.view(-1)[10:16].any()  # a gap, which holds no number that is not finite


@NEEDS_TRITON
def test_an_update_is_compiled_once_for_each_dtype():
    x = torch.zeros(4097)
    for dtype in (torch.bfloat16, torch.float32):
        with kernel_checks.variants() as found:
            for n in (0, 1, 16, 3, 2**32 - 1):
                for piece in (x[: n % 100 + 1].to(dtype), x.to(dtype)[1 : n % 100 + 2]):
                    kernels.move_by_normals(piece, float(n), (n, 1), n << 8)
                    kernels.move_by_normals(piece, 1e-3, (5, n), n)
        assert len(found) == 1


def test_without_a_compiler_a_warning_says_so(monkeypatch, caplog):
    def fail(*arguments, **options):
        raise RuntimeError("Failed to find C compiler.\nMore lines")

    monkeypatch.setattr(draw_kernels, "draw_span", fail)
    monkeypatch.setattr(draw_kernels, "HAS_TRITON", True)
    monkeypatch.setattr(torch, "empty", lambda *shape, device: None)
    assert not draw_kernels.run_on.__wrapped__(torch.device("cuda:3"))
    assert not draw_kernels.run_on.__wrapped__(torch.device("cpu"))
    assert [r.getMessage() for r in caplog.records] == [
        "Triton cannot compile for cuda:3: Failed to find C compiler; slower code computes the"
        " same numbers; what to do: install a C compiler and the headers of Python"
    ]


def test_without_triton_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(kernels, "HAS_TRITON", False)
    with pytest.raises(UserError, match="needs the package triton"):
        kernels.move_by_normals(torch.zeros(3), 1.0, (1, 2), 0)


@pytest.mark.parametrize("room", [engine, randomness])
def test_the_kernels_can_be_imported_without_triton(monkeypatch, room):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "triton" else find(name, *rest),
    )
    monkeypatch.setitem(sys.modules, "triton", None)
    for known in (engine, randomness):  # both are imported anew, and the known ones put back
        monkeypatch.setattr(known, "kernels", importlib.import_module(f"{known.__name__}.kernels"))
        monkeypatch.delitem(sys.modules, f"{known.__name__}.kernels")
    assert not importlib.import_module(f"{room.__name__}.kernels").HAS_TRITON
