"""A run is the same run whatever interrupts it, and nothing that was finished is lost."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
from pathlib import Path

import cells
import pytest
import torch
import wandb

from lozo_bench import assemble
from lozo_bench.errors import UserError
from lozo_bench.run import run, run_and_tell
from lozo_bench.runs.journal import Journal, read
from lozo_bench.runs.outcome import Code, read_failure
from lozo_bench.stop import Stopped

EMBEDDED = Path(assemble.__file__).parent / "models" / "embedded"
LONG = ["steps=60", "eval_every=20", "log_every=5"]
COMPARED = ("metrics", "best_step", "forwards", "backwards", "tokens", "bad_steps", "weights")


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The folder of a run that nothing disturbed, by its overrides; each made once."""
    made = {}

    def folder(*overrides):
        if overrides not in made:
            made[overrides] = tmp_path_factory.mktemp("quiet")
            assert cells.run(made[overrides], *overrides) == [Code.finished]
        return made[overrides]

    return folder


def assert_same_run(one, other):
    first, second = cells.result(one), cells.result(other)
    assert {key: first[key] for key in COMPARED} == {key: second[key] for key in COMPARED}
    assert cells.rows(one) == cells.rows(other)
    logs = [read((folder / "journal.bin").read_bytes()).steps for folder in (one, other)]
    assert [[a.numpy().tobytes() for a in step] for step in logs[0]] == [
        [a.numpy().tobytes() for a in step] for step in logs[1]
    ]


class StopAt:
    """Asks to stop at the n-th time that it is looked at."""

    def __init__(self, count):
        self.left = count

    def __call__(self):
        self.left -= 1
        if self.left < 0:
            raise Stopped("SIGTERM")


@pytest.mark.parametrize("optimizer", ["lozo", "mezo", "adamw"])
@pytest.mark.parametrize("looks", [0, 1, 7, 25, 39])
def test_stopped_at_any_look_it_goes_on_to_the_same_end(tmp_path, quiet, optimizer, looks):
    """The looks are in the zero-shot evaluation, in steps, and in evaluations between them."""
    overrides = [f"optimizer={optimizer}", "eval_batch_size=5"]
    with pytest.raises(Stopped):
        run(cells.config(*overrides), tmp_path, StopAt(looks))
    assert not (tmp_path / "result.json").exists()
    run(cells.config(*overrides), tmp_path)
    assert_same_run(quiet(*overrides), tmp_path)
    assert cells.result(tmp_path)["sittings"] <= 2


@pytest.fixture(scope="module")
def dropping(tmp_path_factory):
    """The embedded model, but a third of it drops out where that is wanted."""
    folder = tmp_path_factory.mktemp("models") / "dropping"
    shutil.copytree(EMBEDDED / "tiny_opt", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dropout": 0.3}))
    return folder


def test_what_drops_out_is_the_same_when_a_run_is_gone_on_with(tmp_path, quiet, dropping):
    overrides = ["optimizer=adamw", "model=local", f"model.path={dropping}"]
    with pytest.raises(Stopped):
        run(cells.config(*overrides), tmp_path, StopAt(20))
    run(cells.config(*overrides), tmp_path)
    assert_same_run(quiet(*overrides), tmp_path)
    without = quiet(*overrides, "optimizer.dropout=false")
    assert cells.result(without)["weights"] != cells.result(tmp_path)["weights"]


@pytest.mark.parametrize("looks", [18, 26])
@pytest.mark.parametrize("optimizer", ["lozo", "lozo_m", "mezo", "adamw"])
def test_a_state_that_is_also_the_best_step_serves_as_both(tmp_path, quiet, optimizer, looks):
    """What goes on moving afterwards must not move the weights that will be tested."""
    overrides = [f"optimizer={optimizer}", "eval_every=5", "checkpoint.kind=full"]
    overrides += ["optimizer.lr=1e-2"]
    interrupted(tmp_path, *overrides, looks=looks)
    assert list((tmp_path / "checkpoints").glob("*.safetensors"))
    run(cells.config(*overrides), tmp_path)
    assert_same_run(quiet(*overrides), tmp_path)


def test_a_first_order_run_that_is_stopped_again_and_again_comes_to_its_end(tmp_path, quiet):
    """Each sitting ends before the next periodic state, or in the midst of an evaluation."""
    overrides = ["optimizer=adamw", "checkpoint.every=100", "eval_batch_size=5"]
    sittings = 0
    while not (tmp_path / "result.json").exists():
        try:
            run(cells.config(*overrides), tmp_path, StopAt(9))
        except Stopped:
            sittings += 1
        assert sittings < 20
    assert sittings > 3
    assert_same_run(quiet(*overrides), tmp_path)


def test_mixed_precision_goes_on_with_the_scale_it_had(tmp_path, quiet):
    overrides = ["optimizer=sgd", "optimizer.momentum=0.9", "model.autocast=fp16"]
    overrides += ["model.gradient_checkpointing=true", "micro_batch_size=4"]
    overrides += ["steps=6", "eval_every=6", "task.source.dev=6", "task.source.test=6"]
    interrupted(tmp_path, *overrides, looks=10)
    run(cells.config(*overrides), tmp_path)
    assert_same_run(quiet(*overrides), tmp_path)
    scales = [row["loss_scale"] for row in cells.rows(tmp_path) if "loss_scale" in row]
    assert scales[0] == 2.0**16
    assert scales[-1] < 2.0**16


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR2"])
def test_a_signal_stops_a_run_that_then_goes_on(tmp_path, quiet, name):
    process = cells.start_waiting(tmp_path, LONG)
    cells.wait_until_it_waits(tmp_path, process)
    os.kill(process.pid, signal.Signals[name])
    process.join(60)
    assert process.exitcode in (Code.stopped, -signal.SIGUSR2)  # whose default ends a process
    assert f"stopped by {name}" in cells.log(tmp_path)
    assert cells.run(tmp_path, *LONG) == [Code.finished]
    assert_same_run(quiet(*LONG), tmp_path)


def interrupted(folder, *overrides, looks=60):
    with pytest.raises(Stopped):
        run(cells.config(*overrides), folder, StopAt(looks))


@pytest.mark.parametrize("damage", ["cut", "flipped", "zeros behind", "empty", "gone"])
def test_a_damaged_log_is_gone_on_with_from_where_it_is_whole(tmp_path, quiet, caplog, damage):
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
    assert_same_run(quiet(), tmp_path)
    assert ("is damaged after byte" in caplog.text) == (damage not in ("gone", "empty"))


@pytest.mark.parametrize(("optimizer", "looks"), [("adamw", 20), ("lozo_m", 40)])
@pytest.mark.parametrize("damaged", ["newest", "all"])
def test_a_damaged_state_is_passed_over_for_the_one_before(
    tmp_path, quiet, caplog, optimizer, looks, damaged
):
    overrides = [f"optimizer={optimizer}", "checkpoint.kind=full"]
    interrupted(tmp_path, *overrides, looks=looks)
    states = sorted((tmp_path / "checkpoints").glob("*.safetensors"))
    assert len(states) == 2
    for path in states[-1:] if damaged == "newest" else states:
        path.write_bytes(path.read_bytes()[:-100])
    run(cells.config(*overrides), tmp_path)
    assert_same_run(quiet(*overrides), tmp_path)
    assert f"{states[-1].name} is damaged and is passed over" in caplog.text


def test_a_full_disk_is_one_line_and_with_room_the_run_goes_on(tmp_path, quiet):
    overrides = ["steps=150", "eval_every=50", "log_every=1"]
    process = cells.start(tmp_path, overrides, {"LARGEST_FILE": "9000", "LEVEL": "WARNING"})
    process.join(60)
    assert process.exitcode == Code.bad_input
    (line,) = cells.log(tmp_path).splitlines()
    assert "File too large; make room for it" in line
    assert "File too large" in read_failure(tmp_path).reason
    assert cells.run(tmp_path, *overrides) == [Code.finished]
    assert_same_run(quiet(*overrides), tmp_path)
    assert read_failure(tmp_path) is None


def test_an_output_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, caplog):
    def refused(self):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "journal.bin"))

    monkeypatch.setattr(Journal, "flush", refused)
    assert run_and_tell(cells.config(), tmp_path) == Code.bad_input
    said = caplog.records[-1].getMessage()
    assert said.startswith(f"{tmp_path / 'journal.bin'}: Read-only file system; make room for it")
    assert not (tmp_path / "result.json").exists()


def test_a_gpu_out_of_memory_is_one_line_and_the_steps_are_kept(tmp_path, quiet, monkeypatch):
    original = assemble.option_scorer
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
        patch.setattr(assemble, "option_scorer", small_gpu)
        with pytest.raises(UserError, match=r"out of memory .*batch_size.*dtype=bf16.*are kept"):
            run(cells.config(), tmp_path)
    assert len(read((tmp_path / "journal.bin").read_bytes()).steps) > 5
    run(cells.config(), tmp_path)
    assert_same_run(quiet(), tmp_path)


def test_two_processes_never_run_the_same_cell(tmp_path):
    first = cells.start_waiting(tmp_path, LONG)
    cells.wait_until_it_waits(tmp_path, first)
    assert cells.run(tmp_path, *LONG) == [Code.busy]
    cells.go_on(tmp_path)
    first.join(60)
    assert first.exitcode == Code.finished
    assert cells.result(tmp_path)["sittings"] == 1


def test_wandb_out_of_reach_means_offline_and_says_so(tmp_path, monkeypatch, caplog):
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


def test_wandb_that_gives_up_on_the_way_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    def limited(self, row):
        raise wandb.errors.CommError("rate limited")

    monkeypatch.setattr("wandb.Run.log", limited)
    run(cells.config("tracking=wandb", "steps=2", "eval_every=2"), tmp_path)
    assert caplog.text.count("wandb takes no more numbers (rate limited)") == 1
    assert [row["step"] for row in cells.rows(tmp_path)] == [0, 1, 2, 2, 2]


def test_a_run_is_one_wandb_run_however_often_it_was_interrupted(tmp_path):
    wandb_options = ["tracking=wandb"]
    interrupted(tmp_path, *wandb_options)
    (first,) = tmp_path.glob("wandb/offline-run-*")
    run_id = first.name.split("-", 3)[3]
    first.rename(first.with_name(f"offline-run-20200101_000000-{run_id}"))  # another second's
    run(cells.config(*wandb_options), tmp_path)
    names = [path.name.rsplit("-", 2) for path in tmp_path.glob("wandb/offline-run-*")]
    assert len(names) == 2
    assert len({tuple(name[1:]) for name in names}) == 1


def test_rerun_missing_retries_what_failed_and_all_begins_anew(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    bad = cells.config("optimizer.lr=1e30", "engine.max_bad_steps=0")
    assert run_and_tell(bad, tmp_path) == Code.bad_input
    assert "the run stops here" in read_failure(tmp_path).reason
    assert run_and_tell(bad, tmp_path) == Code.bad_input  # and again, for the same reason

    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    assert run_and_tell(cells.config("rerun=failed"), tmp_path) == Code.skipped
    assert not (tmp_path / "journal.bin").exists()
    assert run_and_tell(cells.config(), tmp_path) == Code.finished
    before = (tmp_path / "journal.bin").stat().st_mtime_ns
    assert run_and_tell(cells.config("rerun=failed"), tmp_path) == Code.finished
    assert "already finished" in caplog.text
    assert (tmp_path / "journal.bin").stat().st_mtime_ns == before
    assert run_and_tell(cells.config("rerun=all"), tmp_path) == Code.finished
    assert (tmp_path / "journal.bin").stat().st_mtime_ns > before
    assert cells.result(tmp_path)["sittings"] == 1


def test_an_engine_that_was_measured_is_kept_when_the_run_goes_on(tmp_path, monkeypatch):
    """Another day's measurement might choose another one, which rounds in another way."""
    auto = ["engine.mode=auto", "optimizer.nu=7"]
    interrupted(tmp_path, *auto)
    monkeypatch.setattr("lozo_bench.engines.choose", lambda *given: pytest.fail("measured again"))
    run(cells.config(*auto), tmp_path)
    assert cells.result(tmp_path)["sittings"] == 2


def test_a_log_of_another_run_is_not_gone_on_with(tmp_path):
    interrupted(tmp_path)
    with pytest.raises(UserError, match=r"journal\.bin: it is of the run .* and this one is"):
        run(cells.config("optimizer.lr=2e-4"), tmp_path)


def test_a_token_in_a_yaml_file_is_refused_and_never_logged(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", "a-very-secret-token")
    secret = cells.config("tracking.project=x-a-very-secret-token")
    assert run_and_tell(secret, tmp_path) == Code.bad_input
    assert "tracking.project: holds an access token" in caplog.text
    assert "a-very-secret" not in caplog.text
    assert "a-very-secret" not in "".join(p.read_text() for p in tmp_path.glob("*.json*"))
