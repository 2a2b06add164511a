"""A resumed run equals the uninterrupted one, whatever interrupted it; nothing is lost."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal

import cells
import pytest
import torch
import wandb

from lozo_bench.config.paths import EMBEDDED
from lozo_bench.errors import Stopped, UserError
from lozo_bench.runs.journal import Journal, read
from lozo_bench.runs.outcome import Code, read_failure
from lozo_bench.training import build_run
from lozo_bench.training.run import run, run_cell

LONG = ["steps=30", "eval_every=10", "log_every=5"]
COMPARED = ("metrics", "best_step", "forwards", "backwards", "tokens", "bad_steps", "weights")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return the folder of an undisturbed run; each set of overrides is run once."""
    folders = {}

    def folder(*overrides):
        if overrides not in folders:
            folders[overrides] = tmp_path_factory.mktemp("undisturbed")
            assert cells.run(folders[overrides], *overrides) == [Code.finished]
        return folders[overrides]

    return folder


def assert_same_run(one, other):
    first, second = cells.result(one), cells.result(other)
    assert {key: first[key] for key in COMPARED} == {key: second[key] for key in COMPARED}
    assert cells.rows(one) == cells.rows(other)
    logs = [read((folder / "journal.bin").read_bytes()).steps for folder in (one, other)]
    assert [[a.numpy().tobytes() for a in step] for step in logs[0]] == [
        [a.numpy().tobytes() for a in step] for step in logs[1]
    ]


class StopAtCheck:
    """A check that asks the run to stop after ``count`` calls."""

    def __init__(self, count):
        self.left = count

    def __call__(self):
        self.left -= 1
        if self.left < 0:
            raise Stopped("SIGTERM")


@pytest.mark.parametrize(
    ("optimizer", "checks"),
    [("lozo", 0), ("mezo", 1), ("adamw", 7), ("lozo", 25), ("mezo", 39), ("adamw", 25)],
)
def test_a_run_stopped_at_any_check_resumes_to_the_same_result(
    tmp_path, undisturbed, optimizer, checks
):
    """The checks are in the zero-shot evaluation, in steps, and in evaluations between steps."""
    overrides = [f"optimizer={optimizer}", "eval_batch_size=5"]
    with pytest.raises(Stopped):
        run(cells.config(*overrides), tmp_path, StopAtCheck(checks))
    assert not (tmp_path / "result.json").exists()
    run(cells.config(*overrides), tmp_path)
    assert_same_run(undisturbed(*overrides), tmp_path)
    assert cells.result(tmp_path)["sittings"] <= 2


def resumed(folder, undisturbed, overrides, checks):
    """Return the result of a run that was stopped once; it must be that of an undisturbed one."""
    with pytest.raises(Stopped):
        run(cells.config(*overrides), folder, StopAtCheck(checks))
    run(cells.config(*overrides), folder)
    assert_same_run(undisturbed(*overrides), folder)
    return cells.result(folder)


@pytest.mark.parametrize(("optimizer", "checks"), [("lozo", 30), ("adamw", 18), ("adamw", 29)])
def test_a_run_that_gives_up_does_so_at_the_same_step(tmp_path, undisturbed, optimizer, checks):
    """With so small a learning rate dev never becomes better."""
    overrides = [f"optimizer={optimizer}", "optimizer.lr=1e-12", "patience=2", "eval_every=4"]
    overrides += ["eval_batch_size=5"]
    result = resumed(tmp_path, undisturbed, overrides, checks)
    assert (result["steps"], result["best_step"], result["stopped_early"]) == (12, 4, "patience=2")


@pytest.mark.parametrize(("optimizer", "checks"), [("lozo", 30), ("adamw", 18)])
def test_a_run_that_has_spent_its_queries_ends_at_the_same_step(
    tmp_path, undisturbed, optimizer, checks
):
    overrides = [f"optimizer={optimizer}", "max_queries=150", "batch_size=8", "eval_every=4"]
    overrides += ["eval_batch_size=5"]
    result = resumed(tmp_path, undisturbed, overrides, checks)
    assert (result["steps"], result["stopped_early"]) == (10, "max_queries=150")
    assert 150 <= result["queries"] + result["backward_queries"] < 166


@pytest.fixture(scope="module")
def model_with_dropout(tmp_path_factory):
    """The embedded model with a dropout of 0.3, used where an optimizer asks for dropout."""
    folder = tmp_path_factory.mktemp("models") / "with_dropout"
    shutil.copytree(EMBEDDED / "tiny_opt", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dropout": 0.3}))
    return folder


def test_a_resumed_run_has_the_same_dropout(tmp_path, undisturbed, model_with_dropout):
    overrides = ["optimizer=adamw", "model=local", f"model.path={model_with_dropout}"]
    with pytest.raises(Stopped):
        run(cells.config(*overrides), tmp_path, StopAtCheck(20))
    run(cells.config(*overrides), tmp_path)
    assert_same_run(undisturbed(*overrides), tmp_path)
    without = undisturbed(*overrides, "optimizer.dropout=false")
    assert cells.result(without)["weights"] != cells.result(tmp_path)["weights"]


@pytest.mark.parametrize(
    ("optimizer", "checks"),
    [("lozo", 18), ("lozo", 26), ("lozo_m", 26), ("mezo", 18), ("adamw", 18), ("adamw", 26)],
)
def test_a_checkpoint_of_the_best_step_also_serves_as_the_tested_weights(
    tmp_path, undisturbed, optimizer, checks
):
    """Later steps must not change the weights that will be tested."""
    overrides = [f"optimizer={optimizer}", "eval_every=5", "checkpoint.kind=full"]
    overrides += ["optimizer.lr=1e-2"]
    interrupted(tmp_path, *overrides, checks=checks)
    assert list((tmp_path / "checkpoints").glob("*.safetensors"))
    run(cells.config(*overrides), tmp_path)
    assert_same_run(undisturbed(*overrides), tmp_path)


def test_a_first_order_run_that_is_stopped_repeatedly_finishes(tmp_path, undisturbed):
    """Each attempt ends before the next periodic checkpoint, or during an evaluation."""
    overrides = ["optimizer=adamw", "checkpoint.every=100", "eval_batch_size=5"]
    attempts = 0
    while not (tmp_path / "result.json").exists():
        try:
            run(cells.config(*overrides), tmp_path, StopAtCheck(9))
        except Stopped:
            attempts += 1
        assert attempts < 20
    assert attempts > 3
    assert_same_run(undisturbed(*overrides), tmp_path)


def test_mixed_precision_resumes_with_the_same_loss_scale(tmp_path, undisturbed):
    overrides = ["optimizer=sgd", "optimizer.momentum=0.9", "model.autocast=fp16"]
    overrides += ["model.gradient_checkpointing=true", "micro_batch_size=4"]
    overrides += ["steps=6", "eval_every=6", "task.source.dev=6", "task.source.test=6"]
    interrupted(tmp_path, *overrides, checks=10)
    run(cells.config(*overrides), tmp_path)
    assert_same_run(undisturbed(*overrides), tmp_path)
    scales = [row["loss_scale"] for row in cells.rows(tmp_path) if "loss_scale" in row]
    assert scales[0] == 2.0**16
    assert scales[-1] < 2.0**16


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR2"])
def test_a_run_stopped_by_a_signal_can_be_resumed(tmp_path, undisturbed, name):
    process = cells.start_waiting(tmp_path, LONG)
    cells.wait_until_it_waits(tmp_path, process)
    os.kill(process.pid, signal.Signals[name])
    process.join(60)
    assert process.exitcode in (Code.stopped, -signal.SIGUSR2)  # SIGUSR2 ends a process by default
    assert f"stopped by {name}" in cells.log(tmp_path)
    assert cells.run(tmp_path, *LONG) == [Code.finished]
    assert_same_run(undisturbed(*LONG), tmp_path)


def interrupted(folder, *overrides, checks=60):
    with pytest.raises(Stopped):
        run(cells.config(*overrides), folder, StopAtCheck(checks))


@pytest.mark.parametrize("damage", ["cut", "flipped", "zeros behind", "empty", "gone"])
def test_a_run_with_a_damaged_journal_resumes_before_the_damage(
    tmp_path, undisturbed, caplog, damage
):
    interrupted(tmp_path)
    path = tmp_path / "journal.bin"
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "flipped":
        data[2 * len(data) // 3] ^= 1
        path.write_bytes(data)
    else:
        changed = {"cut": data[:-7], "zeros behind": data + bytes(64), "empty": b""}
        path.write_bytes(changed[damage])
    run(cells.config(), tmp_path)
    assert_same_run(undisturbed(), tmp_path)
    assert ("is damaged after byte" in caplog.text) == (damage not in ("gone", "empty"))


@pytest.mark.parametrize(("optimizer", "checks"), [("adamw", 20), ("lozo_m", 40)])
@pytest.mark.parametrize("damaged", ["newest", "all"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    tmp_path, undisturbed, caplog, optimizer, checks, damaged
):
    overrides = [f"optimizer={optimizer}", "checkpoint.kind=full"]
    interrupted(tmp_path, *overrides, checks=checks)
    states = sorted((tmp_path / "checkpoints").glob("*.safetensors"))
    assert len(states) == 2
    for path in states[-1:] if damaged == "newest" else states:
        path.write_bytes(path.read_bytes()[:-100])
    run(cells.config(*overrides), tmp_path)
    assert_same_run(undisturbed(*overrides), tmp_path)
    assert f"{states[-1].name} is damaged and is skipped" in caplog.text


def test_a_full_disk_is_a_one_line_error_and_the_run_can_be_resumed(tmp_path, undisturbed):
    overrides = ["steps=150", "eval_every=50", "log_every=1"]
    process = cells.start(tmp_path, overrides, {"MAX_FILE_BYTES": "9000", "LEVEL": "WARNING"})
    process.join(60)
    assert process.exitcode == Code.bad_input
    (line,) = cells.log(tmp_path).splitlines()
    assert "File too large; raise the largest allowed size of a file" in line
    assert "File too large" in read_failure(tmp_path).reason
    assert cells.run(tmp_path, *overrides) == [Code.finished]
    assert_same_run(undisturbed(*overrides), tmp_path)
    assert read_failure(tmp_path) is None


def test_an_output_that_cannot_be_written_is_a_one_line_error(tmp_path, monkeypatch, caplog):
    def refused(self):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "journal.bin"))

    monkeypatch.setattr(Journal, "flush", refused)
    assert run_cell(cells.config(), tmp_path) == Code.bad_input
    message = caplog.records[-1].getMessage()
    assert message.startswith(
        f"{tmp_path / 'journal.bin'}: Read-only file system; make it writable"
    )
    assert not (tmp_path / "result.json").exists()


def test_a_gpu_out_of_memory_is_a_one_line_error_and_the_steps_are_kept(
    tmp_path, undisturbed, monkeypatch
):
    original = build_run.option_scorer
    calls = []

    def small_gpu(*arguments):
        scorer = original(*arguments)

        def score(batch):
            calls.append(batch)
            if len(calls) == 40:
                raise torch.OutOfMemoryError("CUDA out of memory. 20 MiB asked for.\nmore")
            return scorer(batch)

        return score

    with monkeypatch.context() as patch:
        patch.setattr(build_run, "option_scorer", small_gpu)
        with pytest.raises(UserError, match=r"out of memory .*batch_size.*dtype=bf16.*are kept"):
            run(cells.config(), tmp_path)
    assert len(read((tmp_path / "journal.bin").read_bytes()).steps) > 5
    run(cells.config(), tmp_path)
    assert_same_run(undisturbed(), tmp_path)


def test_a_second_process_does_not_run_the_same_cell(tmp_path):
    first = cells.start_waiting(tmp_path, LONG)
    cells.wait_until_it_waits(tmp_path, first)
    assert cells.run(tmp_path, *LONG) == [Code.busy]
    cells.go_on(tmp_path)
    first.join(60)
    assert first.exitcode == Code.finished
    assert cells.result(tmp_path)["sittings"] == 1


def test_without_a_connection_wandb_records_offline_with_a_warning(tmp_path, monkeypatch, caplog):
    original, modes = wandb.init, []

    def init(**options):
        modes.append(options["mode"])
        if options["mode"] == "online":
            raise wandb.errors.CommError("Run initialization has timed out after 90.0 sec.")
        return original(**options)

    monkeypatch.setattr(wandb, "init", init)
    online = ["tracking=wandb", "tracking.mode=online", "steps=2", "eval_every=2"]
    run(cells.config(*online), tmp_path)
    assert modes == ["online", "offline"]
    assert "wandb cannot be reached (Run initialization has timed out" in caplog.text
    assert list(tmp_path.glob("wandb/offline-run-*"))


def test_an_error_in_wandb_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    def limited(self, row, step=None):
        raise wandb.errors.CommError("rate limited")

    monkeypatch.setattr("wandb.Run.log", limited)
    run(cells.config("tracking=wandb", "steps=2", "eval_every=2"), tmp_path)
    assert caplog.text.count("wandb accepts no more numbers (rate limited)") == 1
    assert [row["step"] for row in cells.rows(tmp_path)] == [0, 1, 2, 2, 2]


def test_an_interrupted_run_keeps_its_wandb_id(tmp_path):
    wandb_options = ["tracking=wandb"]
    interrupted(tmp_path, *wandb_options)
    (first,) = tmp_path.glob("wandb/offline-run-*")
    run_id = first.name.split("-", 3)[3]
    first.rename(first.with_name(f"offline-run-20200101_000000-{run_id}"))  # another second's
    run(cells.config(*wandb_options), tmp_path)
    names = [path.name.rsplit("-", 2) for path in tmp_path.glob("wandb/offline-run-*")]
    assert len(names) == 2
    assert len({tuple(name[1:]) for name in names}) == 1


def test_each_value_of_rerun_selects_the_right_cells(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    bad = cells.config("optimizer.lr=1e30", "engine.max_bad_steps=0")
    assert run_cell(bad, tmp_path) == Code.bad_input
    assert "the run stops here" in read_failure(tmp_path).reason
    assert run_cell(bad, tmp_path) == Code.bad_input  # and again, for the same reason

    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    assert run_cell(cells.config("rerun=failed"), tmp_path) == Code.skipped
    assert not (tmp_path / "journal.bin").exists()
    assert run_cell(cells.config(), tmp_path) == Code.finished
    before = (tmp_path / "journal.bin").stat().st_mtime_ns
    assert run_cell(cells.config("rerun=failed"), tmp_path) == Code.finished
    assert "already finished" in caplog.text
    assert (tmp_path / "journal.bin").stat().st_mtime_ns == before
    assert run_cell(cells.config("rerun=all"), tmp_path) == Code.finished
    assert (tmp_path / "journal.bin").stat().st_mtime_ns > before
    assert cells.result(tmp_path)["sittings"] == 1


def test_a_resumed_run_keeps_the_measured_engine(tmp_path, monkeypatch):
    """A new measurement might choose another engine, which rounds differently."""
    auto = ["engine.mode=auto", "optimizer.nu=7"]
    interrupted(tmp_path, *auto, checks=24)  # both engines need more for the whole run
    monkeypatch.setattr(
        "lozo_bench.training.choose_engine.measure_fastest",
        lambda *given: pytest.fail("measured again"),
    )
    run(cells.config(*auto), tmp_path)
    assert cells.result(tmp_path)["sittings"] == 2


def test_a_journal_of_another_run_is_refused(tmp_path):
    interrupted(tmp_path)
    with pytest.raises(UserError, match=r"journal\.bin: it belongs to the run .* and this run is"):
        run(cells.config("optimizer.lr=2e-4"), tmp_path)


def test_a_token_in_a_config_is_refused_and_never_logged(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", "a-very-secret-token")
    secret = cells.config("tracking.project=x-a-very-secret-token")
    assert run_cell(secret, tmp_path) == Code.bad_input
    assert "tracking.project: contains an access token" in caplog.text
    assert "a-very-secret" not in caplog.text
    assert "a-very-secret" not in "".join(p.read_text() for p in tmp_path.glob("*.json*"))
