"""A draw depends on (seed, role, step, name) and on nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lozo_bench.randomness.draws import Draws, key_words

GOLDEN = [
    -0.8118025660514832,
    -0.2431354969739914,
    -0.08461465686559677,
    0.9774066209793091,
    -0.6537427306175232,
    1.062579870223999,
]
GOLDEN_KEY = (1659097406, 2506054350)

names = st.text("abcdef.0", min_size=1, max_size=6)
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(names, shapes, min_size=1, max_size=4), st.integers(0, 2**40))
def test_a_tensor_is_the_same_drawn_alone_or_together_with_others(wanted, step):
    draws = Draws(3)
    together = draws.normal("U", step, wanted)
    for name, shape in wanted.items():
        alone = draws.normal("U", step, {name: shape})[name]
        assert alone.shape == shape
        assert torch.equal(together[name], alone)


@pytest.mark.parametrize("other", ["seed", "role", "step", "high word of step", "name"])
def test_each_part_of_the_key_changes_the_draw(other):
    def draw(seed=0, role="U", step=5, name="w"):
        return Draws(seed).normal(role, step, {name: (1000,)})[name].double()

    changed = {
        "seed": draw(seed=1),
        "role": draw(role="V"),
        "step": draw(step=6),
        "high word of step": draw(step=5 + 2**32),
        "name": draw(name="v"),
    }[other]
    correlation = torch.corrcoef(torch.stack([draw(), changed]))[0, 1]
    assert abs(correlation) < 0.12  # four standard errors


def test_a_longer_draw_begins_with_the_shorter_one():
    draws = Draws(0)
    short, long = (draws.normal("z", 1, {"w": (n,)})["w"] for n in (6, 1000))
    assert torch.equal(long[:6], short)


def test_draws_equal_the_recorded_values():
    """If these values changed, every published run would silently change."""
    drawn = Draws(42).normal("U", 7, {"model.decoder.weight": (2, 3)})["model.decoder.weight"]
    assert drawn.flatten().tolist() == GOLDEN
    assert key_words(42, "U", "model.decoder.weight") == GOLDEN_KEY


def test_float32_draws_are_the_rounded_float64_draws():
    narrow = Draws(0).normal("z", 1, {"w": (50,)})["w"]
    wide = Draws(0).normal("z", 1, {"w": (50,)}, dtype=torch.float64)["w"]
    assert torch.equal(narrow, wide.float())


def test_drawing_does_not_change_the_global_generator():
    before = torch.random.get_rng_state()
    Draws(0).normal("z", 1, {"w": (50,)})
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_same_bits_as_the_cpu():
    wanted = {"w": (300, 70), "b": (11,)}
    here = Draws(1).normal("z", 3, wanted)
    there = Draws(1).normal("z", 3, wanted, device="cuda")
    assert all(torch.equal(here[name], there[name].cpu()) for name in wanted)
