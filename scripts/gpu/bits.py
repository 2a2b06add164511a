"""Whether the device computes the same numbers as the CPU, and at what speed it draws them."""

from __future__ import annotations

import time

import torch
from bench import models, modes
from torch import Tensor

from gpu.machine import Line, Machine, bits_differ
from lozo_bench.engine import kernels
from lozo_bench.engine.fold import Folder, Rounding
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.engine.score import Score
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.randomness.draws import Draws, key_words
from lozo_bench.randomness.kernels import HAS_TRITON

# The fingerprint of the numbers below on a CPU; every device and every version of torch must give
# these bits.
GOLDEN_DRAWS = "a7cf4875d1b2c36cc154b4332b603e85"
ROUNDINGS: tuple[Rounding, ...] = ("nearest", "stochastic", "residual")


def draws(machine: Machine) -> Line:
    """Check that U, V and z have the CPU's bits and the recorded ones; time a step's draws."""
    shapes = {"a": (5120, 2), "b": (7,), "c": (50272, 3), "d": (1,), "e": (1000, 33)}
    wrong, drawn = {}, {}
    for dtype in (torch.float32, torch.float64):
        here = Draws(7).normal("U", 3, shapes, "cpu", dtype)
        there = Draws(7).normal("U", 3, shapes, machine.device, dtype)
        for name in shapes:
            drawn[f"{name}/{dtype}"] = there[name].cpu()
            wrong[f"{name}/{dtype}"] = bits_differ(here[name], there[name].cpu())
    for step, start, stop in ((0, 0, 10), (2**40 + 5, 3, 100_003), (17, 2**33 + 1, 2**33 + 50)):
        normals, uniforms = (
            [draw(step, start, stop, device) for device in ("cpu", machine.device)]
            for draw in (_normal_range, _uniform_range)
        )
        for kind, (on_cpu, on_device) in (("normal", normals), ("uniform", uniforms)):
            drawn[f"{kind}_range/{step}"] = on_device.cpu()
            wrong[f"{kind}_range/{step}"] = bits_differ(on_cpu, on_device.cpu())
    found, bad = fingerprint(drawn), {name: count for name, count in wrong.items() if count}
    shapes_of_step = _shapes_of_opt_13b(machine)
    ms = machine.milliseconds(lambda: Draws(1).normal("U", 5, shapes_of_step, machine.device))
    return {
        "ok": not bad and found == GOLDEN_DRAWS,
        "wrong": bad,
        "fingerprint": found,
        "as_golden": found == GOLDEN_DRAWS,
        "ms_of_a_13b_steps_draws": round(ms, 2),
    }


def _normal_range(step: int, start: int, stop: int, device: str) -> Tensor:
    return Draws(1).normal_range("z", step, "w", start, stop, device)


def _uniform_range(step: int, start: int, stop: int, device: str) -> Tensor:
    return Draws(1).uniform_range("fold", step, "w", start, stop, device)


def _shapes_of_opt_13b(machine: Machine) -> dict[str, tuple[int, int]]:
    """Return the shapes that a LOZO step draws for the 40 layers of OPT-13B: U and z."""
    width, layers = (64, 2) if machine.tiny else (5120, 40)
    shapes: dict[str, tuple[int, int]] = {}
    for i in range(layers):
        shapes |= {f"{i}/{j}": (width, 2) for j in range(5)} | {f"{i}/f": (4 * width, 2)}
        shapes |= {f"{i}/v{j}": (width, 1) for j in range(9)} | {f"{i}/vf": (4 * width, 1)}
    return shapes


def kernel(machine: Machine) -> Line:
    """Check that moving weights by z gives the CPU's bits in every dtype; time compiling and z."""
    wrong, seconds = {}, {}
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        X = _weights_of(dtype)
        z_of_tie = float(Draws(7).normal("z", 3, {"tie": (1,)})["tie"])
        half_way = torch.finfo(dtype).eps / 2 / z_of_tie  # from 1 to the middle of two numbers
        # Only a few, because the kernel is compiled again for each new kind of argument.
        moves = [(3, 1e-3), (2**40 + 5, -0.7), (3, half_way)]
        if dtype == torch.bfloat16:
            moves += [(1, -0.7), (16, 2.0)]
        for step, by in moves:
            here = {name: x.clone() for name, x in X.items()}
            there = {name: x.clone().to(machine.device) for name, x in X.items()}
            began = time.perf_counter()
            Gaussian(Draws(7), step).move(there, by)
            machine.finish()
            seconds[f"{dtype}/{step}/{by:.1g}"] = round(time.perf_counter() - began, 2)
            Gaussian(Draws(7), step).move(here, by)
            for name in X:
                if count := bits_differ(here[name], there[name].cpu()):
                    wrong[f"{dtype}/{name}/{step}"] = count
    return {
        "ok": not wrong,
        "wrong": wrong,
        "one_pass": machine.is_cuda and HAS_TRITON,
        "seconds": seconds,
        "speed": {str(dtype): _speed(machine, dtype) for dtype in (torch.bfloat16, torch.float32)},
    }


def _weights_of(dtype: torch.dtype) -> dict[str, Tensor]:
    """Return weights of several lengths, rare numbers, and a 1 that is moved to a tie."""
    number = torch.finfo(dtype)
    rare = [0.0, -0.0, number.max, -number.max, number.tiny / 8, float("inf"), float("nan")]
    generator = torch.Generator().manual_seed(2)
    X = {
        str(n): torch.randn(n, generator=generator, dtype=torch.float64).to(dtype)
        for n in (1, 3, 1024, 4 * 1024 + 7, 1_000_003)
    }
    return X | {"rare": torch.tensor(rare, dtype=dtype), "tie": torch.ones(1, dtype=dtype)}


def _speed(machine: Machine, dtype: torch.dtype) -> Line:
    x = torch.zeros(2**16 if machine.tiny else 2**28, dtype=dtype, device=machine.device)
    key = key_words(1, "z", "x")

    def move() -> None:
        if machine.is_cuda and HAS_TRITON:
            kernels.move_by_normals(x, 1e-3, key, 5)
        else:
            Gaussian(Draws(1), 5).move({"x": x}, 1e-3)

    ms = machine.milliseconds(move, 3)
    return {"ms": round(ms, 2), "gb_s": round(2 * x.nbytes / ms / 1e6, 1)}


def zero_lr(machine: Machine) -> Line:
    """Check that steps with a learning rate of 0 leave half-precision weights as they are."""
    line: Line = {"ok": True}
    sizes = models.KNOWN["opt-125m"].overridden(layers=2, hidden=None, vocab=None)
    if machine.tiny:
        sizes = machine.sizes("opt-125m")
    for dtype in ("bf16", "fp16"):
        config = models.config_of("opt-125m", sizes)
        model = models.random_model(config, models.DTYPES[dtype], torch.device(machine.device))
        job = modes.work(model, False, 4, 20, 2)
        before = fingerprint(job.X)
        engine = Fused(model, job.X, Folder("stochastic", Draws(0)), 4)

        def fingerprint_after_steps(
            lr: float, engine: Fused = engine, job: modes.Work = job
        ) -> tuple[str, float]:
            lozo = Lozo(engine, Draws(0), lr=lr, eps=1e-3, rank=2, nu=2)
            losses = [lozo.step(Score(engine, job.answer_only)).loss for _ in range(7)]
            engine.flush()
            return fingerprint(job.X), losses[0]

        after, loss = fingerprint_after_steps(lr=0.0)
        moved, _ = fingerprint_after_steps(lr=1e-3)
        line["ok"] &= after == before != moved
        line[dtype] = {"unchanged_by_zero_lr": after == before, "loss": loss}
    return line


def fold_bits(machine: Machine) -> Line:
    """Check that a fold on the device rounds nearly all weights as the CPU does.

    The sums W + L V^T differ by rounding between devices, so a few weights may be rounded the other
    way. The random bits of stochastic rounding are the same.
    """
    m, n = (64, 128) if machine.tiny else (2048, 4096)
    generator = torch.Generator().manual_seed(0)
    W = (0.02 * torch.randn(m, n, generator=generator)).bfloat16()
    L = 1e-4 * torch.randn(m, 34, generator=generator)
    V = torch.randn(n, 34, generator=generator)
    share = {}
    for rounding in ROUNDINGS:
        folded = []
        for device in ("cpu", machine.device):
            w = W.clone().to(device)
            Folder(rounding, Draws(5)).fold("w", w, L.to(device), V.to(device))
            folded.append(w.cpu())
        share[rounding] = float((folded[0] != folded[1]).float().mean())
    return {"ok": max(share.values()) < 1e-3, "share_that_differs": share}
