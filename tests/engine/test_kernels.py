"""The kernel gives the bits of the torch code, in Triton's interpreter and on a GPU if any.

The interpreter must be switched on before Triton is imported, so it runs in separate processes.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import subprocess
import sys

import pytest
import torch

from lozo_bench.engine import kernels
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws, key_words

DTYPES = ["float64", "float32", "bfloat16", "float16"]
NEEDS_TRITON = pytest.mark.skipif(not kernels.HAS_TRITON, reason="needs the package triton")
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# Sizes below, at and above the 1024 elements of one program of the kernel, some no multiple of 4.
SIZES = {"one": 1, "three": 3, "program": 1024, "more": 1024 + 7}


def weights(dtype):
    generator = torch.Generator().manual_seed(2)
    X = {
        name: torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)
        for name, size in SIZES.items()
    }
    rare = [0.0, -0.0, torch.finfo(dtype).max, -torch.finfo(dtype).max, torch.finfo(dtype).tiny / 8]
    X["rare"] = torch.tensor([*rare, float("inf"), float("nan")], dtype=dtype)
    X["tie"] = torch.ones(1, dtype=dtype)
    return X


def bits_differ(a, b):
    """Return where two tensors of one dtype have different bits; all NaN count as equal."""
    return ((a != b) & ~(a.isnan() & b.isnan())) | (a.signbit() != b.signbit()) & ~a.isnan()


def compare(dtype_name, device):
    """Compare a small, a large and a tied update; a test calls it in another process, too."""
    dtype = getattr(torch, dtype_name)
    z0 = float(Draws(7).normal("z", 3, {"tie": (1,)})["tie"])
    to_the_middle = torch.finfo(dtype).eps / 2 / z0  # between 1 and the next number
    for step, by in ((3, 1e-3), (2**40 + 5, -0.7), (3, to_the_middle)):
        expected = weights(dtype)
        Gaussian(Draws(7), step).move(expected, by)
        for name, x in weights(dtype).items():
            x = x.to(device)
            kernels.move_by_normals(x, by, key_words(7, "z", name), step)
            wrong = int(bits_differ(x.cpu(), expected[name]).sum())
            where = f"{name!r} in {dtype_name}, step {step}, by {by}"
            assert wrong == 0, f"{wrong} of {len(x)} elements of {where}"


def run_in_a_process(code, tmp_path, **environment):
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"],
        env=os.environ | {"TRITON_CACHE_DIR": str(tmp_path)} | environment,
        check=True,
        timeout=120,
    )


@NEEDS_TRITON
def test_the_kernel_gives_the_bits_of_the_torch_code(tmp_path):
    (tmp_path / "this_test.py").symlink_to(__file__)
    code = "import this_test as t\nfor dtype in t.DTYPES: t.compare(dtype, 'cpu')"
    run_in_a_process(code, tmp_path, TRITON_INTERPRET="1")


@NEEDS_CUDA
@NEEDS_TRITON
@pytest.mark.parametrize("dtype_name", DTYPES)
def test_a_gpu_gives_the_bits_of_the_torch_code(dtype_name):
    compare(dtype_name, "cuda")


def operations(pointer, bits, bfloat):
    """Compile for an H100 (none is needed); return the count of each instruction and the PTX."""
    import collections
    import re

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    numbers = ("size", "by_bits", "key0", "key1", "step_low", "step_high")
    fixed = {"BITS": bits, "BFLOAT": bfloat, "COUNTERS": 256}
    signature = (
        {"x_at": pointer} | dict.fromkeys(numbers, "i64") | dict.fromkeys(fixed, "constexpr")
    )
    source = ASTSource(fn=kernels._move_by_normals, signature=signature, constexprs=fixed)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=kernels.OPTIONS)
    ptx = compiled.asm["ptx"]
    return collections.Counter(re.findall(r"^\s*(?:@%p\d+ )?([a-z]\S*)", ptx, re.M)), ptx


@NEEDS_TRITON
@pytest.mark.parametrize(("pointer", "bits", "bfloat"), [("*fp64", 64, False), ("*i16", 16, True)])
def test_compiled_code_rounds_every_operation_correctly(
    tmp_path, monkeypatch, pointer, bits, bfloat
):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    counts, ptx = operations(pointer, bits, bfloat)
    names = set(counts)
    assert not [name for name in names if name.startswith(("fma", "mad.rn")) or "ftz" in name]
    assert not [name for name in names if "approx" in name or "full" in name]
    assert counts["sqrt.rn.f64"] == 4  # each thread computes two radii for each of two counters
    assert counts["div.rn.f64"] == 4
    ln2, half_of_pi = "0d3FE62E42FEFA39EF", "0d3E1921FB54442D18"  # float64 constants
    assert ln2 in ptx
    assert half_of_pi in ptx


def test_without_triton_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(kernels, "HAS_TRITON", False)
    with pytest.raises(UserError, match="needs the package triton"):
        kernels.move_by_normals(torch.zeros(3), 1.0, (1, 2), 0)


def test_the_module_can_be_imported_without_triton(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "triton" else find(name, *rest),
    )
    monkeypatch.setitem(sys.modules, "triton", None)
    anew = runpy.run_path(kernels.__file__)
    assert not anew["HAS_TRITON"]
