"""The comparison of two versions: what it runs, and that it finds each kind of difference."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))
import compare_versions  # noqa: E402
from compare import cells, journal, outputs, side  # noqa: E402

from lozo_bench.runs.journal import Journal  # noqa: E402

RUN = cells.Cell("a run", ())
CONFIG = cells.Cell("config a=b", (), trains=False)
# Scales each update of LOZO by 1 + 1e-7.
CHANGE = """

_step = Lozo.step


def _scaled(self, score):
    lr, self.lr = self.lr, self.lr * (1 + 1e-7)
    report = _step(self, score)
    self.lr = lr
    return report


Lozo.step = _scaled
"""


def write_journal(path, losses, every, seconds=1.0):
    """Write a run of one evaluation and these losses, ``every`` steps in each block."""
    spent = {"forwards": 2 * len(losses), "elapsed_s": seconds}
    written = Journal(path, 0, {"digest": "0", "device": f"cpu {seconds}"}, {})
    for i, loss in enumerate(losses, 1):
        written.step([torch.tensor([loss, -loss]), torch.tensor([[loss]])], spent)
        if i % every == 0:
            written.flush()
    written.evaluation(len(losses), "dev", {"loss": 0.5})
    written.flush()
    written.close()


@pytest.fixture
def finished(tmp_path):
    """Two folders of the same finished run, with other seconds and other blocks."""
    for i, name in enumerate(("before", "after"), 1):
        folder = tmp_path / name
        folder.mkdir()
        result = {
            "metrics": {"test": {"accuracy": 0.75, "loss": 0.5}},
            "weights": {"last": "aa", "tested": "bb"},
            "engine": {"mode": "fused", "measured_ms": {"fused": float(i)}},
            "train_s": float(i),
            "versions": {"lozo-bench": str(i)},
        }
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "metrics.jsonl").write_text(json.dumps({"loss": 0.5, "elapsed_s": i}) + "\n")
        (folder / "stderr.txt").write_text(f"a message of version {i}\n")
        write_journal(folder / "journal.bin", [0.5, 0.25, 0.125, 1.0], i, float(i))
    return tmp_path / "before", tmp_path / "after"


def change_result(folder, *keys, value):
    result = json.loads((folder / "result.json").read_text())
    node = result
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    (folder / "result.json").write_text(json.dumps(result))


def ended(folder, code=0):
    return side.Ended(folder, code, 1.0)


def test_every_optimizer_tuning_and_model_is_run_with_its_yaml_file_alone():
    runs = cells.runs([ROOT, ROOT], 30)
    overrides = {override for cell in runs for override in cell.overrides}
    for group in ("optimizer", "tuning"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            assert f"{group}={path.stem}" in overrides
    assert {"model=tiny_opt", "model=tiny_roberta", "model.dtype=bf16"} <= overrides
    names = [cell.name for cell in runs]
    assert len(set(names)) == len(names)


def test_the_configuration_of_every_option_is_composed():
    names = {cell.name for cell in cells.configs([ROOT, ROOT])}
    assert {"config model=opt_13b", "config experiment=smoke", "config rank=r2"} <= names
    groups = {name.split()[1].partition("=")[0] for name in names}
    assert {"model", "task", "optimizer", "tuning", "method", "grid", "variant"} <= groups


def test_an_option_of_only_one_version_is_given_to_both(tmp_path):
    for name, option in (("before", "old"), ("after", "new")):
        folder = tmp_path / name / "conf" / "optimizer"
        folder.mkdir(parents=True)
        (folder / f"{option}.yaml").write_text("lr: 1.0\n")
        defaults = "defaults:\n  - schema\n  - optimizer: old\n  - optional tuned: x\n"
        (folder.parent / "config.yaml").write_text(defaults)
    found = [cell.name for cell in cells.configs([tmp_path / "before", tmp_path / "after"])]
    assert found == ["config optimizer=new", "config optimizer=old"]


def test_only_keeps_cells_that_have_all_patterns():
    runs = cells.runs([ROOT, ROOT], 30)
    chosen = compare_versions.chosen(runs, ["optimizer=lozo*", "engine.mode=in_place"])
    assert chosen
    for cell in chosen:
        assert "engine.mode=in_place" in cell.overrides
        assert any(override.startswith("optimizer=lozo") for override in cell.overrides)


def test_runs_that_differ_in_seconds_versions_and_blocks_alone_are_equal(finished):
    assert outputs.differences(RUN, *map(ended, finished)) == {}


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        (("weights", "last"), "weights"),
        (("metrics", "test", "loss"), "metrics"),
        (("engine", "mode"), "engine"),
        (("a new key",), "keys"),
    ],
)
def test_a_difference_of_the_results_is_found(finished, keys, what):
    change_result(finished[1], *keys, value="other")
    assert list(outputs.differences(RUN, *map(ended, finished))) == [what]


def test_a_difference_of_the_rows_or_the_files_is_found(finished):
    (finished[1] / "metrics.jsonl").write_text('{"loss": 0.75}\n')
    (finished[1] / "more.bin").touch()
    assert set(outputs.differences(RUN, *map(ended, finished))) == {"rows", "files"}


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.5, 0.25, 0.125, 1.0 + 2**-23], "values of step 4"),
        ([0.5, 0.25, 0.125], "4 and 3 steps"),
    ],
)
def test_a_difference_of_the_journals_is_found(finished, losses, expected):
    path = finished[1] / "journal.bin"
    path.unlink()
    write_journal(path, losses, 2)
    found = outputs.differences(RUN, *map(ended, finished))
    assert list(found) == ["journal"]
    assert expected in found["journal"]


def test_a_journal_that_is_cut_off_is_a_difference(finished):
    path = finished[1] / "journal.bin"
    path.write_bytes(path.read_bytes()[:-1])
    found = outputs.differences(RUN, *map(ended, finished))
    assert "damaged after byte" in found["journal"]


def test_the_reader_of_journals_finds_the_values_that_were_written(finished):
    read = journal.read((finished[0] / "journal.bin").read_bytes())
    (kind, shape, values), (_, other_shape, _) = read.steps[1]
    assert (kind, shape, other_shape) == ("<f4", (2,), (1, 1))
    assert torch.frombuffer(bytearray(values), dtype=torch.float32).tolist() == [0.25, -0.25]
    assert read.evaluations == [[4, "dev", {"loss": 0.5}]]
    assert read.spent == {"forwards": 8}


def test_a_run_that_fails_in_one_version_or_in_both_is_not_equal(finished):
    before, after = finished
    one = outputs.differences(RUN, ended(before), ended(after, 2))
    assert one == {"exit code": "0 and 2: a message of version 2"}
    both = outputs.differences(RUN, ended(before, 2), ended(after, 2))
    assert both == {"exit code": "2 in both: a message of version 1"}


def test_a_difference_of_the_composed_configurations_is_found(tmp_path):
    for name, text in (("before", "a: 1\nb: 2\n"), ("after", "a: 1\nb: 3\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stdout.txt").write_text(text)
    before, after = ended(tmp_path / "before"), ended(tmp_path / "after")
    assert outputs.differences(CONFIG, before, before) == {}
    assert outputs.differences(CONFIG, before, after) == {"config": "b: 2; b: 3"}


def test_expected_differences_are_patterns_of_cells_and_of_what_differs(tmp_path):
    path = tmp_path / "expected.txt"
    path.write_text("# why\n\noptimizer=lozo* : digest  # renamed\nconfig scale=tiny\n")
    some, everything = outputs.read_expected(path)
    assert some.covers("optimizer=lozo_m tuning=full", "digest")
    assert not some.covers("optimizer=lozo_m tuning=full", "weights")
    assert not some.covers("optimizer=mezo tuning=full", "digest")
    assert everything.covers("config scale=tiny", "exit code")


def test_the_file_of_expected_differences_can_be_read():
    outputs.read_expected(compare_versions.EXPECTED)


@pytest.mark.parametrize("version", ["no-such-revision", str(SCRIPTS)])
def test_a_version_that_is_not_there_is_one_line(version, capsys):
    assert compare_versions.main([version, str(ROOT)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{version}: n")
    assert error.count("\n") == 1


def test_outputs_are_not_kept_in_a_folder_that_has_files(tmp_path, capsys):
    (tmp_path / "file").touch()
    only = ["--only", "optimizer=lozo", "--keep", str(tmp_path)]
    assert compare_versions.main([str(ROOT), str(ROOT), *only]) == 2
    assert capsys.readouterr().err == f"--keep: {tmp_path} is not empty\n"


def test_a_pattern_without_a_cell_is_one_line(capsys):
    assert compare_versions.main([str(ROOT), str(ROOT), "--only", "nope"]) == 2
    assert capsys.readouterr().err == "--only: no cell has nope\n"


def test_an_update_scaled_by_a_ten_millionth_is_found_in_the_runs_that_have_it(tmp_path):
    changed = tmp_path / "changed"
    for folder in ("lozo_bench", "conf"):
        shutil.copytree(ROOT / folder, changed / folder)
    with (changed / "lozo_bench" / "optimizers" / "lozo.py").open("a") as file:
        file.write(CHANGE)
    command = [
        *(sys.executable, SCRIPTS / "compare_versions.py", ROOT, changed, "--steps", "6"),
        *("--only", "optimizer=*zo", "--only", "micro_batch_size=2"),
        *("--out", tmp_path / "out.jsonl"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    verdicts = {row["cell"].split()[0]: row["verdict"] for row in rows}
    assert verdicts == {"optimizer=mezo": "equal", "optimizer=lozo": "differs"}
    (found,) = (row["unexpected"] for row in rows if row["unexpected"])
    assert "weights" in found
    assert "2 cells, 1 differ" in done.stdout
