"""A command that is refused leaves nothing behind, and shows no secret."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from lozo_bench.runs.status import statuses_below

SHORT = [
    "experiment=smoke", "steps=2", "eval_every=2", "model.device=cpu", "task.source.train=32",
    "task.source.dev=8", "task.source.test=8", "tracking=files",
]  # fmt: skip


@pytest.mark.parametrize("mode", [[], ["-m"]], ids=["a run", "a sweep"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["optimizer.nu=many"], ["optimizer.nu: given 'many'; allowed: a whole number"]),
        (["batch_size=-1"], ["batch_size: given -1; allowed: a whole number >= 1"]),
        (["+seeds=3"], ["seeds: no such key (did you mean 'seed'?)"]),
        (["task=mr_kshot"], ["task=mr_kshot: a task for masked models only"]),
        (["sweep=../elsewhere"], ["sweep: given '../elsewhere'; allowed: letters"]),
        (
            ["log_every=0", "optimizer.eps=x", "task.source.train=y", "+tuning.r=4"],
            ["log_every: given 0", "optimizer.eps: given 'x'", "task.source.train: given 'y'",
             "tuning.r: no such key; it takes no options"],
        ),
    ],
)  # fmt: skip
def test_a_command_with_wrong_values_leaves_nothing_behind(
    command, tmp_path, mode, arguments, said
):
    (tmp_path / "below").mkdir()
    os.chdir("below")
    code, out, err = command(*mode, "tracking=files", *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == len(said)
    for line, start in zip(err.splitlines(), said, strict=True):
        assert line.startswith(start)
    assert [path.name for path in tmp_path.rglob("*")] == ["below"]


def test_a_run_that_its_optimizers_class_refuses_leaves_nothing_behind(command, tmp_path):
    code, _, err = command("optimizer.lr=-1", "hydra.run.dir=a/b", *SHORT)
    assert (code, err) == (2, "optimizer.lr: given -1; allowed: a number >= 0\n")
    assert not list(tmp_path.iterdir())


def test_a_sweep_with_wrong_cells_starts_none_and_names_them(command, tmp_path):
    code, out, err = command("-m", "rank.value=0,1", "optimizer.nu=5,x", "steps=y", *SHORT[:1])
    assert (code, out) == (2, "")
    assert err.splitlines() == ["steps: given 'y'; allowed: a whole number"]
    code, out, err = command("-m", "rank.value=0,1", "optimizer.nu=5,x", *SHORT)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "rank.value: given 0; allowed: a whole number >= 1 "
        "(in the cell rank.value=0 optimizer.nu=5 and 1 other; no cell was started)",
        "optimizer.nu: given 'x'; allowed: a whole number "
        "(in the cell rank.value=0 optimizer.nu=x and 1 other; no cell was started)",
    ]
    assert not list(tmp_path.iterdir())


def test_a_sweep_over_nothing_is_refused(command, tmp_path):
    code, _, err = command("-m", "rank.value=range(3,3)", *SHORT)
    assert (code, err) == (2, "this sweep has no cells: rank.value=range(3,3)\n")
    assert not list(tmp_path.iterdir())


def test_wrong_values_are_refused_at_once_and_without_torch(tmp_path):
    code = (
        "import sys; sys.argv[1:] = ['optimizer.lr=abc']; from lozo_bench.train import main\n"
        "try: main()\n"
        "finally: print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2
    assert done.stderr == "optimizer.lr: given 'abc'; allowed: a number\n"
    assert done.stdout == "[]\n"
    # One second where nothing else runs; the processes of a busy machine slow each other down.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3
    assert not list(tmp_path.iterdir())


SECRET = "s3cret-Value_of-mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ["batch_size=${oc.env:MY_TOKEN}"],
        ["rerun=${oc.env:MY_TOKEN}"],
        ["optimizer.lr=${oc.env:MY_TOKEN}"],
        ["sweep=${oc.env:MY_TOKEN}"],
        ["hydra.job.name=x${oc.env:MY_TOKEN}"],
        ["hydra.run.dir=runs/${oc.env:MY_TOKEN}"],
        ["hydra.job.env_copy=[MY_TOKEN]"],
        ["-m", "hydra.sweep.dir=${oc.env:MY_TOKEN}"],
        ["-m", "hydra.sweep.subdir=a/${oc.env:MY_TOKEN}/b"],
        ["-m", "seed.value=0,${oc.env:MY_TOKEN}"],
        ["-m", "hydra.launcher._target_=${oc.env:MY_TOKEN}"],
        ["-m", "hydra/launcher=local", "hydra.launcher.gpus=${oc.env:MY_TOKEN}"],
    ],
)
def test_a_secret_of_the_environment_is_in_no_message_file_or_folder(
    command, tmp_path, monkeypatch, arguments
):
    monkeypatch.setenv("MY_TOKEN", SECRET)
    code, out, err = command(*arguments, *SHORT)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert SECRET not in out + err
    assert not list(tmp_path.iterdir())


def test_a_secret_in_an_error_of_a_cell_is_not_in_failed_json(command, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", SECRET)

    def refused(*_):
        raise RuntimeError(f"no access with {SECRET}")

    monkeypatch.setattr("lozo_bench.training.build_run.load", refused)
    code, out, err = command(*SHORT)
    assert code == 1
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "no access with ***" in written
    assert SECRET not in out + err + written


def test_a_refused_command_changes_nothing_of_an_unfinished_run(command, tmp_path, monkeypatch):
    folder = "hydra.run.dir=mine"
    with monkeypatch.context() as patched:
        patched.setattr("lozo_bench.training.session.write_result", _stop)
        assert command(folder, *SHORT)[0] == 130
    before = {path: path.read_bytes() for path in tmp_path.rglob(".hydra/*")}
    assert {path.name for path in before} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    for change in ("steps=0", "optimizer.lr=-1", "optimizer.lr=3e-3"):
        code, _, err = command(folder, *SHORT, change)
        assert (code, len(err.splitlines())) == (2, 1)
    assert "belongs to the run" in err
    assert {path: path.read_bytes() for path in tmp_path.rglob(".hydra/*")} == before
    assert not list(tmp_path.rglob("failed.json"))
    assert command(folder, *SHORT, "log_every=1")[0] == 0
    (cell,) = statuses_below(tmp_path)
    assert cell.state.value == "finished"
    assert "log_every=1" in cell.command


def _stop(*_):
    raise KeyboardInterrupt


def test_a_cell_that_fails_later_is_known_by_its_command(command, tmp_path):
    code, _, err = command(
        "task.source.seed=1", "optimizer.lr=1e30", "engine.max_bad_steps=0", *SHORT
    )
    assert code == 2, err
    (cell,) = statuses_below(tmp_path)
    assert cell.state.value == "failed"
    assert "optimizer.lr=1e30" in cell.command


@pytest.mark.parametrize(
    ("arguments", "count"),
    [(["scale=tiny"], "a sweep of 20"), (["scale=tiny", "rank=r1"], "a sweep of 5"),
     (["scale=tiny", "rank=r1", "optimizer.nu=50"], None)],
)  # fmt: skip
def test_one_run_of_an_experiment_that_is_a_sweep_says_so(command, arguments, count):
    arguments = ["experiment=lozo_ablation", *arguments, "optimizer.eps=0"]
    _, _, err = command(*arguments)
    notes = [line for line in err.splitlines() if line.startswith("this is one run")]
    assert [count in note for note in notes] == ([] if count is None else [True])
    assert "optimizer.eps: given 0" in err.splitlines()[-1]
    assert not Path("outputs").exists()
