"""Comparisons of Triton kernels with the torch code, and kernels compiled without a GPU.

Each of CASES takes a device. A test runs them on the CPU, in Triton's interpreter, and on a GPU if
there is one. The interpreter must be switched on before Triton is imported, so it needs a process
of its own: one for all cases, because importing torch takes longer than running them.
"""

from __future__ import annotations

import collections
import contextlib
import re
import subprocess
import tempfile
from unittest import mock

import torch
from torch.nn import functional as F

from lozo_bench.engine import fold, fold_kernel, kernels, norm_kernels
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.randomness import draws
from lozo_bench.randomness.draws import Draws, key_words
from lozo_bench.randomness.kernels import OPTIONS

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# Inside, kernels draw on every device.
BY_FOLD_KERNEL = mock.patch.object(fold, "has_fold_kernel", return_value=True)
BY_KERNELS = mock.patch.object(draws, "_has_kernels", return_value=True)


def weights(dtype):
    """Weights that fill less and more than the 1024 elements of one program of the kernel."""
    generator = torch.Generator().manual_seed(2)
    numbers = torch.finfo(dtype)
    rare = [1.0, 0.0, -0.0, numbers.max, -numbers.max, numbers.tiny / 8, float("inf"), float("nan")]
    return {
        "three": torch.randn(3, generator=generator, dtype=torch.float64).to(dtype),
        "more": torch.randn(1024 + 7, generator=generator, dtype=torch.float64).to(dtype),
        "rare": torch.tensor(rare, dtype=dtype),
    }


def check_bits(got, wanted, where):
    """Compare all bits of two tensors; all NaN count as equal."""
    a, b = got.cpu(), wanted.cpu()
    assert (a.dtype, a.shape) == (b.dtype, b.shape), where
    differs = ((a != b) & ~(a.isnan() & b.isnan())) | (a.signbit() != b.signbit()) & ~a.isnan()
    wrong = int(differs.sum())
    assert wrong == 0, f"{wrong} of {a.numel()} elements of {where}"


def moves(device):
    """Compare a large update and one that moves the first of the rare weights to a tie."""
    for dtype in DTYPES:
        z0 = float(Draws(7).normal("z", 3, {"rare": (1,)})["rare"])
        to_the_middle = torch.finfo(dtype).eps / 2 / z0  # between 1 and the next number
        for step, by in ((2**40 + 5, -0.7), (3, to_the_middle)):
            expected = weights(dtype)
            Gaussian(Draws(7), step).move(expected, by)
            for name, x in weights(dtype).items():
                x = x.to(device)
                kernels.move_by_normals(x, by, key_words(7, "z", name), step)
                check_bits(x, expected[name], f"{name!r} in {dtype}, step {step}, by {by}")


def draws_of_many_names(device):
    """Compare tensors of several shapes, also an empty one and one of three programs."""
    shapes = {"a": (3, 5), "b": (2, 4), "c": (3, 5), "empty": (0, 3), "many": (4, 515), "d": ()}
    for step, dtype in ((0, torch.float32), (2**40 + 5, torch.float64), (1, torch.bfloat16)):
        wanted = Draws(5).normal("U", step, shapes, dtype=dtype)
        with BY_KERNELS:
            got = Draws(5).normal("U", step, shapes, device, dtype)
        assert list(got) == list(shapes)
        for name, x in got.items():
            assert x.is_contiguous()
            check_bits(x, wanted[name], f"{name!r} in {dtype}, step {step}")


def draws_of_a_range(device):
    """Compare normals and uniform numbers at the start of a stream and beyond 2^32 blocks."""
    for start, stop, step in ((3, 11, 2**33 + 7), (2**34 - 777, 2**34 + 1022, 1)):
        at = "z", step, "w", start, stop
        for dtype in (torch.float64, torch.float32):
            wanted = Draws(5).normal_range(*at, dtype=dtype)
            with BY_KERNELS:
                got = Draws(5).normal_range(*at, device, dtype)
            check_bits(got, wanted, f"normals from {start} to {stop}")
        wanted = Draws(5).uniform_range(*at)
        with BY_KERNELS:
            got = Draws(5).uniform_range(*at, device)
        check_bits(got, wanted, f"uniform numbers from {start} to {stop}")


def norms(device):
    """Compare norms of groups of rows, of several rows in a program, with float64."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    G, N, d = 3, 3, 40
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = (3 * normal(G * N, 1, d) + 1).to(dtype)
        for many in (G, 1):
            w, b = normal(many, d).float(), normal(many, d).float()
            for weight, bias in ((w, b), (w, None), (None, b)):
                wanted = F.layer_norm(x.double(), (d,), eps=1e-5).view(G, N, d)
                wanted = wanted * (1 if weight is None else weight[:, None])
                wanted = wanted + (0 if bias is None else bias[:, None])
                vectors = (None if v is None else v.to(device) for v in (weight, bias))
                with mock.patch.object(norm_kernels, "_rows_each", return_value=2):
                    got = norm_kernels.layer_norm(x.to(device), *vectors, G, 1e-5)
                check_close(got, wanted.view(x.shape), f"layer norm in {dtype}")
        wanted = F.rms_norm(x.double(), (d,), eps=1e-5).view(G, N, d) * w
        got = norm_kernels.rms_norm(x.to(device), w.to(device), G, 1e-5)
        check_close(got, wanted.view(x.shape), f"RMS norm in {dtype}")


def folds(device):
    """Compare folds with those on a CPU, and with the product summed column by column."""
    generator = torch.Generator().manual_seed(4)

    def whole(*shape):
        return torch.randint(-8, 9, shape, generator=generator).float()

    for dtype, (m, n), keep in (
        (torch.bfloat16, (33, 132), 1.0),
        (torch.float16, (33, 132), 0.75),
        (torch.bfloat16, (9, 7), 0.75),
        (torch.float16, (1, 130), 1.0),
    ):
        numbers = torch.finfo(dtype)
        rare = [0.0, -0.0, numbers.max, -numbers.max, numbers.tiny / 8, float("inf"), float("nan")]
        W = torch.randn(m, n, generator=generator).to(dtype)
        W[0, :7], W[-1, -1] = torch.tensor(rare, dtype=dtype), 0
        exact = 2.0**-11 * whole(m, 3), whole(n, 3)  # all sums of products are exact
        exact[0][0, 0] *= 2**11  # so that the largest weights overflow
        reals = exact[0] / 3, (exact[1] / 3).T.contiguous().T
        for rounding in ("stochastic", "nearest"):
            where = f"{dtype} {m} x {n}, {rounding}"
            got, wanted = W.to(device, copy=True), W.clone()
            folder_of(rounding).fold("w", wanted, *exact, keep)
            with BY_FOLD_KERNEL:
                folder_of(rounding).fold("w", got, *(t.to(device) for t in exact), keep)
            check_bits(got, wanted, where)
        got, u = W.to(device, copy=True), torch.zeros(m, n)
        with BY_FOLD_KERNEL:
            folder_of("stochastic").fold("w", got, *(t.to(device) for t in reals), keep)
        for left, right in zip(reals[0].T, reals[1].T, strict=True):
            u += left[:, None] * right
        u = W.float() * keep + u
        chance = Draws(1).uniform_range("fold", 2**33 + 1, "w", 0, m * n).view(m, n)
        check_bits(got, fold._round_stochastically(u, chance, dtype), f"{where}, sums of reals")


def a_fold_beyond_four_billion_elements(device):
    """Compare the beginning of two rows that are 2^32 elements apart; its file has holes."""
    if device != "cpu":
        return
    n = 2**32 + 4
    with tempfile.TemporaryDirectory() as folder:
        W = torch.from_file(f"{folder}/W", True, 2 * n, dtype=torch.bfloat16).view(2, n)
        begin = W[:, :128]
        begin.copy_(torch.linspace(-1, 1, 256).view(2, 128))
        left, right = torch.tensor([[1e-3, 2e-3]]), torch.linspace(-1, 1, 128)[None]
        u = begin.float() + left.T * right
        chance = [Draws(1).uniform_range("fold", 3, "w", i * n, i * n + 128) for i in (0, 1)]
        wanted = fold._round_stochastically(u, torch.stack(chance), W.dtype)
        numbers = 2, n, 1, 2, 128, 1.0, *key_words(1, "fold", "w"), 3, 0
        flags = {"STOCHASTIC": True, "BFLOAT": True, "ALIGNED": True, "ROWS": 32, "COLUMNS": 128}
        fold_kernel._fold[(1,)](W.view(torch.int16), left, right, *numbers, **flags)
        check_bits(begin, wanted, "two rows of 2^32 elements")


def folder_of(rounding):
    folder = Folder(rounding, Draws(1))
    folder.load_state({"folds/w": torch.tensor(2**33 + 1)})
    return folder


def check_close(got, wanted, where):
    """Compare with float64; the result may be rounded once, after float32."""
    error = (got.cpu().double() - wanted).abs()
    allowed = (torch.finfo(got.dtype).eps / 2 + 1e-6) * wanted.abs() + 2e-6
    assert bool((error <= allowed).all()), f"{where} is wrong by {float(error.max())}"


CASES = [
    moves,
    draws_of_many_names,
    draws_of_a_range,
    norms,
    folds,
    a_fold_beyond_four_billion_elements,
]


Code = collections.namedtuple("Code", ["counts", "ptx", "resources"])


def compiled(kernel, pointers, fixed, arch=90, **options):
    """Compile for a GPU of compute capability arch / 10, such as an H100; none is needed.

    Args:
        kernel: the kernel.
        pointers: types of the arguments without an annotation, such as "*fp32", in their order.
        fixed: values of the constexpr arguments.
        arch: 80 for an A100, 90 for an H100.
        options: further options of the compiler.

    Returns:
        How often each instruction occurs, the PTX, and what each thread needs (REG, STACK, LOCAL).
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = iter(pointers)
    signature, attributes = {}, {}
    for i, param in enumerate(kernel.params):
        if param.name in fixed:
            signature[param.name] = "constexpr"
        elif param.annotation:
            signature[param.name] = param.annotation
        else:
            signature[param.name] = next(types)
            attributes[i,] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=fixed, attrs=attributes)
    target = GPUTarget("cuda", arch, 32)
    made = triton.compile(source, target=target, options=OPTIONS | options)
    ptx = made.asm["ptx"]
    counts = collections.Counter(re.findall(r"^\s*(?:@%p\d+ )?([a-z]\S*)", ptx, re.M))
    return Code(counts, ptx, resources(made.asm["cubin"]))


def check_rounding(code):
    """Check that nothing is fused, approximated, flushed to zero or kept in slow memory."""
    names = set(code.counts)
    assert not [name for name in names if name.startswith(("fma", "mad.rn")) or "ftz" in name]
    assert not [name for name in names if "approx" in name or "full" in name]
    assert code.resources["STACK"] == code.resources["LOCAL"] == 0


def resources(cubin):
    import triton

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}


@contextlib.contextmanager
def variants():
    """Collect the keys of the kernels that would be compiled; none is compiled or run."""
    import triton
    from triton.backends.compiler import GPUTarget

    class Card:
        def get_current_device(self):
            return "no card"

        def get_current_stream(self, device):
            return 0

        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

    found = set()

    def hook(*, key, **_):
        found.add(key)
        return True  # do not compile

    before, triton.knobs.runtime.jit_cache_hook = triton.knobs.runtime.jit_cache_hook, hook
    triton.runtime.driver.set_active(Card())
    try:
        yield found
    finally:
        triton.runtime.driver.set_active(None)  # the machine's own, when it is needed
        triton.knobs.runtime.jit_cache_hook = before
