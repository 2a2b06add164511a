"""bench_step.py: its output, its measurements and the arguments that it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
MODES = ["two_forwards", "fused", "in_place", "published", "published_mezo", "answer_only"]
SMALL = ("--hidden", "32", "--layers", "1", "--vocab", "300", "--batch", "2", "--length", "8")

sys.path.insert(0, str(SCRIPTS))
import bench_step  # noqa: E402
from bench import memory, models, report, timing  # noqa: E402
from bench.modes import Running, modes, work  # noqa: E402
from bench.published import Published  # noqa: E402

CPU = torch.device("cpu")
# Libraries that other parts of the project import and that the script must not need.
ABSENT = ("hydra", "omegaconf", "datasets", "wandb", "rich", "matplotlib", "accelerate")
BARE = """import sys, runpy
sys.modules.update(dict.fromkeys({absent!r}))
sys.argv = {argv!r}
sys.path.insert(0, {scripts!r})
runpy.run_path({scripts!r} + "/bench_step.py", run_name="__main__")
"""


def bench(monkeypatch, *arguments):
    """Run the script with these arguments and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["bench_step.py", *map(str, arguments)])
    threads = torch.get_num_threads()
    try:
        return bench_step.main()
    finally:
        torch.set_num_threads(threads)


def small(family="opt-125m", dtype=torch.float64, options=2, length=8):
    sizes = models.KNOWN[family].overridden(layers=1, hidden=32, vocab=300)
    config = models.config_of(family, sizes)
    model = models.random_model(config, dtype, CPU)
    return work(model, models.is_masked(config), 2, length, options)


def weights(of):
    return {name: x.detach().clone() for name, x in of.X.items()}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The printed text and the JSON of a run without the libraries in ABSENT."""
    out = tmp_path_factory.mktemp("bench") / "step.json"
    argv = ["bench_step.py", "--model", "opt-125m", "--random-init", *SMALL]
    argv += ["--options", "2", "--repeats", "3", "--json", str(out)]
    code = BARE.format(absent=ABSENT, argv=argv, scripts=str(SCRIPTS))
    command, options = [sys.executable, "-c", code], {"cwd": out.parent, "timeout": 100}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(out.read_text())


def test_without_the_absent_libraries_every_mode_has_a_row(measured):
    rows = measured[1]["rows"]
    assert [row["mode"] for row in rows] == MODES
    for row in rows:
        assert 0 < row["ms_min"] <= row["ms_median"] <= row["ms_max"]
        assert row["ratio_low"] <= row["ratio_to_floor"] <= row["ratio_high"]
        assert row["peak_bytes"] > measured[1]["header"]["weight_bytes"]
    assert rows[0]["ratio_to_floor"] == 1


def test_the_header_describes_the_run_and_the_machine(measured):
    header = measured[1]["header"]
    assert header["command"].startswith("python scripts/bench_step.py --model opt-125m")
    shape = {key: header[key] for key in ("hidden", "layers", "vocab", "rows", "length", "options")}
    assert shape == {
        "hidden": 32, "layers": 1, "vocab": 300, "rows": 4, "length": 8, "options": 2,
    }  # fmt: skip
    assert header["torch"] == torch.__version__
    assert header["threads"] >= 1
    assert header["left_out"] == {}


def test_the_table_has_a_line_for_every_mode(measured):
    lines = measured[0].splitlines()
    assert [line.split()[0] for line in lines[2:8]] == MODES


def test_a_masked_model_in_half_precision_is_timed_and_plotted(monkeypatch, tmp_path):
    files = ("--json", tmp_path / "a.json", "--plot", tmp_path / "a.png")
    half = ("--dtype", "bf16", "--repeats", "2", *files)
    assert bench(monkeypatch, "--model", "roberta-base", "--random-init", *SMALL, *half) == 0
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    written = json.loads((tmp_path / "a.json").read_text())
    assert [row["mode"] for row in written["rows"]] == MODES
    assert written["header"]["max_rank"] == 32
    assert written["rows"][1]["fold_every"] == 50 * 17


def test_a_model_in_a_folder_is_timed_with_its_own_weights(monkeypatch, capsys):
    folder = ROOT / "lozo_bench" / "models" / "embedded" / "tiny_opt"
    small = ("--batch", "2", "--length", "8", "--repeats", "1")
    assert bench(monkeypatch, "--model", folder, *small) == 0
    assert "answer_only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "opt-126m", "--random-init"), "did you mean 'opt-125m'?"),
        (("--model", "opt-125m"), "add --random-init"),
        (("--model", "gpt2", "--random-init", *SMALL, "--length", "2000"), "model's 1024"),
        (("--model", "roberta-base", "--random-init", *SMALL, "--length", "513"), "model's 512"),
        (("--model", "gpt2", "--random-init", "--rank", "0"), "--rank: given 0"),
    ],
)
def test_a_mistake_is_reported_in_one_line(monkeypatch, capsys, arguments, message):
    assert bench(monkeypatch, *arguments) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_a_model_without_a_head_is_refused(monkeypatch, capsys, tmp_path):
    config = '{"model_type": "opt", "architectures": ["OPTModel"]}'
    (tmp_path / "config.json").write_text(config)
    assert bench(monkeypatch, "--model", tmp_path, "--random-init") == 2
    assert "OPTModel; only models with a causal or masked" in capsys.readouterr().err


@pytest.mark.parametrize("options", [1, 2])
@pytest.mark.parametrize("family", ["opt-125m", "gpt2", "llama-2-7b", "roberta-base"])
def test_the_answer_only_batch_has_the_same_loss_as_the_plain_batch(family, options):
    job = small(family, options=options)
    with torch.no_grad():
        for x in job.X.values():  # with weights of std 0.02 all losses would be equal to chance
            if x.ndim > 1:
                x.mul_(10)
        plain = torch.cat([part.losses(2) for part in job.plain], dim=1)
        answer_only = torch.cat([part.losses(2) for part in job.answer_only], dim=1)
    assert plain.shape == (2, 2)
    assert plain.std() > 0.01
    torch.testing.assert_close(answer_only, plain, rtol=1e-6, atol=1e-6)


def test_a_published_step_equals_its_equation():
    """The expected W - lr g U V^T is computed here from the same generator."""
    job = small()
    before = weights(job)
    lr, eps = 1e-3, 1e-3
    with torch.random.fork_rng():
        step = Published(job.X, job.plain, rank=2, nu=5, lr=lr, eps=eps)
        step()
        torch.manual_seed(0)
        moves = {}
        for name, x in before.items():
            if x.ndim < 2:
                moves[name] = torch.normal(0.0, 1.0, size=x.shape, dtype=x.dtype)
            else:
                moves[name] = torch.randn(len(x), 2, dtype=x.dtype) @ step.V[name].T

    def loss(by):
        with torch.no_grad():
            for name, x in job.X.items():
                x.copy_(before[name] + by * moves[name])
            return job.plain[0].losses(1).mean().item()

    after = weights(job)
    g = (loss(+eps) - loss(-eps)) / (2 * eps)
    assert abs(g) > 1e-3
    for name, x in before.items():
        torch.testing.assert_close(after[name], x - lr * g * moves[name], rtol=0, atol=1e-11)


def test_published_schemes_have_the_peak_memory_of_the_published_code():
    """In their update, LOZO holds 3 and MeZO 4 copies of the largest matrix beside the weights."""
    sizes = models.KNOWN["opt-125m"].overridden(layers=1, hidden=512, vocab=30_000)
    model = models.random_model(models.config_of("opt-125m", sizes), torch.float32, CPU)
    job = work(model, False, 1, 2, 1)
    starts = modes(job, rank=2, max_rank=0, per_forward=None)
    largest = 4 * 512 * 30_000
    above = {
        name: (memory.peak_bytes(model, starts[name]) - memory.resident_bytes(model)) / largest
        for name in ("in_place", "published", "published_mezo")
    }
    assert above == {
        "in_place": pytest.approx(0, abs=0.2),
        "published": pytest.approx(3, abs=0.2),
        "published_mezo": pytest.approx(4, abs=0.2),
    }


def test_the_peak_counts_memory_that_is_held_at_the_same_time():
    earlier = []
    assert memory.peak_on_cpu(lambda: earlier.append(torch.empty(100_000))) == 400_000

    def run():
        earlier.clear()  # the trace sees this being freed, but it was allocated before the trace
        first, second = torch.empty(2500), torch.empty(2500)
        del first
        third = torch.empty(1250)
        return second, third

    assert memory.peak_on_cpu(run) == 20_000


def test_modes_take_turns_and_the_warm_up_rounds_are_discarded():
    calls = []
    names = ("a", "b", "c")
    running = {name: Running(lambda name=name: calls.append(name)) for name in names}
    times = timing.interleaved(running, repeats=2, device=CPU)
    assert timing.WARM_UP == 2
    assert calls == [*"abc", *"bca", *"cab", *"abc"]
    assert {name: len(of.wall) for name, of in times.items()} == dict.fromkeys(names, 2)


def test_ratios_are_computed_within_each_repeat():
    """A repeat in which the machine is twice as slow affects both times equally."""
    floor = timing.Times([10, 20, 10], [10, 20, 10])
    ours = timing.Times([11, 24, 13], [12, 22, 13])
    row = report.row("fused", ours, floor, 7, tokens=26)
    assert row["ratio_to_floor"] == pytest.approx(1.2)
    assert row["cpu_ratio_to_floor"] == pytest.approx(1.2)
    assert (row["ms_median"], row["ms_min"], row["ms_max"]) == (13, 11, 24)
    assert row["tokens_per_s"] == pytest.approx(2000)


def test_no_mode_changes_the_global_generator_or_moves_the_weights_noticeably():
    job = small(dtype=torch.float32)
    before, generator = weights(job), torch.get_rng_state()
    for start in modes(job, rank=2, max_rank=0, per_forward=None).values():
        timing.timed(start().step, CPU)
        for name, x in job.X.items():
            torch.testing.assert_close(x.detach(), before[name], rtol=0, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_random_model_is_reproducible_and_has_the_requested_dtype():
    config = models.config_of("llama-2-7b", models.KNOWN["llama-2-7b"].overridden(1, 64, 100))
    first = models.random_model(config, torch.bfloat16, CPU)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        generator = torch.get_rng_state()
        second = models.random_model(config, torch.bfloat16, CPU)
        assert torch.equal(torch.get_rng_state(), generator)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.dtype == torch.bfloat16
        assert torch.equal(one, other)
    assert first.lm_head.weight.float().std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("opt-1.3b", 1.316), ("opt-13b", 12.85), ("opt-30b", 29.97), ("opt-66b", 65.72)],
)
def test_a_known_name_has_the_parameter_count_of_the_published_model(name, billions):
    """OPT has 12 L d^2 + 13 L d + (50272 + 2050) d + 2 d parameters; the head is tied."""
    config = models.config_of(name)
    with torch.device("meta"):
        model = models._auto(config).from_config(config)
    assert model.num_parameters() / 1e9 == pytest.approx(billions, rel=2e-3)


@pytest.mark.parametrize(
    ("option", "value"), [("--json", "/no/such/folder/x.json"), ("--plot", "x.txt")]
)
def test_an_unusable_output_path_is_refused_before_anything_is_measured(
    option, value, monkeypatch, capsys
):
    with pytest.raises(SystemExit) as stop:
        bench(monkeypatch, "--model", "opt-125m", "--random-init", option, value)
    assert stop.value.code == 2
    assert f"argument {option}: given '{value}'; allowed:" in capsys.readouterr().err


def test_an_interrupted_run_reports_it_in_one_line(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_step, "measure", interrupted)
    assert bench(monkeypatch, "--model", "opt-125m", "--random-init", *SMALL) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"
