"""precision.py: its schemes, its measurements and its output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lozo_bench.engine.fold import Folder
from lozo_bench.engine.pending import PendingUpdate
from lozo_bench.engine.subspace import Subspace, along
from lozo_bench.randomness.draws import Draws

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import precision  # noqa: E402
from precision import NU, ROUNDINGS, Scheme, walk, wanted  # noqa: E402

# Libraries that other parts of the project import and that the script must not need.
ABSENT = ("hydra", "omegaconf", "datasets", "wandb", "rich", "matplotlib", "accelerate")
BARE = """import sys, runpy
sys.modules.update(dict.fromkeys({absent!r}))
sys.argv = {argv!r}
runpy.run_path({script!r}, run_name="__main__")
"""
LR_G = 1e-5


def small(steps=230, size=24, dtype=torch.bfloat16):
    return walk(0, size, steps, dtype)


def row(scheme, of, lr_g=LR_G):
    return precision.measure(scheme, of, lr_g)


def test_the_exact_displacement_is_the_sum_of_all_steps():
    of = small()
    D = torch.zeros(24, 24, dtype=torch.float64)
    for k in range(230):
        D -= LR_G * of.g[k] * of.U[k].double() @ of.V[k // 50].double().T
    torch.testing.assert_close(wanted(of, LR_G), D, rtol=1e-12, atol=1e-18)
    assert of.V.shape == (5, 24, 2)
    assert set(of.g.tolist()) == {-1.0, 1.0}


def test_a_shorter_run_has_the_first_draws_of_a_longer_one():
    many, few = small(230), small(120)
    for one, other in zip(
        (many.first(120).U, many.first(120).V, many.first(120).g, many.W),
        (few.U, few.V, few.g, few.W),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("max_rank", [0, 4])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_study_rounds_as_the_engine_does(rounding, max_rank):
    of = small()
    W = of.W.clone()
    point = PendingUpdate({"W": W}, Folder(rounding, Draws(0)), max_rank)
    for p in range(5):
        V = {"W": of.V[p]}
        for k in range(NU * p, min(NU * p + NU, 230)):
            step = Subspace({"W": of.U[k]}, V, {})
            point.move(step, along(step, -LR_G * float(of.g[k])))
    point.flush()
    _, saved = Scheme(rounding, max_rank, bf16_factors=True).run(of, LR_G)
    # The engine sums a period in float32, the study in float64: a few weights round differently.
    assert ((W.double() - of.W.double()) != saved).double().mean() < 0.02
    assert (saved != 0).double().mean() > 0.5


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_displacement_includes_what_is_not_yet_folded(rounding, half):
    of = small()
    D, saved = Scheme(rounding, max_rank=10, half=half).run(of, LR_G)  # five periods: no fold yet
    torch.testing.assert_close(D, wanted(of, LR_G), rtol=1e-5, atol=1e-10)
    assert not torch.equal(D, saved)
    assert torch.equal(((of.W.double() + saved).bfloat16()).double() - of.W.double(), saved)


def test_the_half_variant_folds_only_the_older_half():
    of = small(steps=3 * NU)
    D, _ = Scheme("nearest", max_rank=4, half=True).run(of, LR_G)  # two of three periods
    newest = wanted(of, LR_G) - wanted(of.first(2 * NU), LR_G)
    older = D - newest
    torch.testing.assert_close((of.W.double() + older).bfloat16().double() - of.W, older)
    assert float((D - wanted(of, LR_G)).norm()) > 1e-5


def test_in_place_is_accurate_when_steps_are_large_compared_with_rounding():
    assert row(Scheme(in_place=True), small(dtype=torch.float16), lr_g=0.01)["error"] < 0.01


def test_errors_agree_with_an_independent_measurement():
    """It gave, in bf16 for lr|g| = 1e-5 and 1e-6: 4.7 and 46 in place, 0.30 for a plain fold."""
    of = small(steps=1000, size=128)
    assert row(Scheme(in_place=True), of)["error"] == pytest.approx(5, rel=0.2)
    assert row(Scheme(in_place=True), of, 1e-6)["error"] == pytest.approx(50, rel=0.2)
    assert row(Scheme("nearest"), of)["error"] == pytest.approx(0.30, rel=0.05)


def test_the_default_scheme_keeps_the_displacement_and_has_little_noise():
    of = small(steps=2000, size=128)
    default = Scheme("stochastic", 32, bf16_factors=True)
    assert row(default, of)["projection"] == pytest.approx(1, abs=0.02)
    assert row(default, of)["error"] < 0.3
    in_place = row(Scheme(in_place=True), of.first(200), 1e-6)["error"]
    assert row(default, of, 1e-6)["error"] < in_place / 20


def test_no_scheme_saves_weights_with_a_smaller_error_than_the_ideal():
    of = small(dtype=torch.float16)
    ideal = row(Scheme(), of)["error"]
    for scheme in precision.schemes([4]):
        assert row(scheme, of)["saved_error"] >= ideal


def test_memory_is_reported_for_a_matrix_of_width_5120():
    stack = Scheme("residual", 32)
    factors = 32 * (5120 + 5120) + 2 * 5120  # the stack, and A of the open period
    assert stack.bytes_per_weight() == pytest.approx(4 * factors / 5120**2)
    narrow = Scheme("residual", 32, bf16_factors=True)
    assert narrow.bytes_per_weight() == pytest.approx((2 * 32 * 10240 + 4 * 10240) / 5120**2)
    assert row(stack, small())["host_bytes_per_weight"] == 2
    assert Scheme(in_place=True).bytes_per_weight() == 0


def test_without_the_absent_libraries_a_table_and_rows_are_written(tmp_path):
    out = tmp_path / "rows.json"
    argv = ["precision.py", "--steps", "60", "120", "--sizes", "16", "--max-ranks", "2"]
    argv += ["--json", str(out)]
    code = BARE.format(absent=ABSENT, argv=argv, script=str(SCRIPTS / "precision.py"))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    names = {scheme.name for scheme in precision.schemes([2])}
    assert {r["scheme"] for r in rows} == names
    assert len(rows) == 2 * 2 * 2 * len(names)  # steps, lr|g|, seeds
    assert all(r["dtype"] == "bf16" and r["error"] >= 0 for r in rows)
    for name in ("16 x 16, 60 steps, lr|g| = 1e-05", "stack 2 in bf16, residual", "in_place"):
        assert name in done.stdout
    assert done.stderr.splitlines()[0] == "16 x 16, 60 steps, lr|g| = 1e-05 ..."


def test_seeds_are_averaged_and_the_farthest_projection_is_reported():
    common = {
        "size": 8,
        "steps": 1,
        "lr_g": 1e-5,
        "scheme": "x",
        "saved_error": 0,
        "ms_per_step": 0,
    }
    rows = [common | {"projection": p, "error": e} for p, e in ((0.9, 1.0), (1.05, 2.0))]
    (mean,) = precision.average(rows)
    assert mean["projection"] == pytest.approx(0.975)
    assert mean["error"] == pytest.approx(1.5)
    assert mean["farthest"] == pytest.approx(0.1)


def test_a_picture_is_written(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    out = tmp_path / "precision.png"
    argv = ["--steps", "60", "120", "--sizes", "16", "--max-ranks", "2", "--plot", str(out)]
    monkeypatch.setattr(sys, "argv", ["precision.py", *argv])
    assert precision.main() == 0
    assert out.read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--steps", "0"), ("--seeds", "two"), ("--lr-g", "0")),
        *(("--json", "/no/such/folder/x.json"), ("--plot", "x.txt")),
    ],
)
def test_a_refused_argument_names_the_given_and_the_allowed_values(
    option, value, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["precision.py", option, value])
    with pytest.raises(SystemExit) as stop:
        precision.main()
    assert stop.value.code == 2
    assert f"given '{value}'; allowed:" in capsys.readouterr().err


def test_an_interrupted_study_reports_it_and_writes_nothing(tmp_path, monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(precision, "measure_all", interrupted)
    monkeypatch.setattr(sys, "argv", ["precision.py", "--json", str(tmp_path / "x.json")])
    assert precision.main() == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"
    assert not list(tmp_path.iterdir())
