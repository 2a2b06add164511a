"""A report says of the runs below a folder what their files say, damaged files included."""

from __future__ import annotations

import json

import pytest
from report_folders import ROWS, TABLE, dev_row, row, write_run

from lozo_bench.errors import UserError
from lozo_bench.report.collect import Collector, collect
from lozo_bench.runs.planned import write_planned


@pytest.fixture
def sweep(tmp_path):
    """The folder of a sweep, which Hydra has marked."""
    folder = tmp_path / "outputs" / "first"
    folder.mkdir(parents=True)
    (folder / "multirun.yaml").touch()
    return folder


def only_run(folder):
    (run,) = collect(folder)["runs"]
    return run


def test_seeds_make_one_row_and_one_line_with_their_mean_and_deviation(sweep):
    write_run(sweep, seed=0, test=0.5)
    write_run(sweep, seed=1, test=0.7, rows=[row(1, 0.4), row(2, 0.2), dev_row(2, 0.25)])
    report = collect(sweep.parent)
    (found,) = report["sweeps"]
    assert found["counts"] == {"finished": 2}
    ((cells,),) = (table["rows"] for table in found["tables"])
    assert [cell["text"] for cell in cells] == ["2", "0.7500 (0.0000)", "0.6000 (0.1000)"]
    ((line,),) = (group["lines"] for group in found["curves"])
    assert line["loss"] == {"s": [1, 2], "y": [0.6, 0.4], "d": [0.2, 0.2], "n": 2}
    assert line["dev"]["y"] == [0.5]


def test_the_rows_are_those_of_the_table_that_the_sweep_prints(sweep):
    write_run(sweep, lr=1e-3, dev=0.5, test=0.5)
    write_run(sweep, lr=1e-4, test=0.25)
    (table,) = collect(sweep)["sweeps"][0]["tables"]
    assert [column["name"] for column in table["header"]] == ["lr", "runs", "dev", "test"]
    assert [[cell["text"] for cell in cells] for cells in table["rows"]] == [
        ["1e-4", "1", "0.7500 *", "0.2500"],
        ["1e-3", "1", "0.5000", "0.5000"],
    ]


def test_a_line_knows_its_cost_on_every_axis(sweep):
    write_run(sweep)
    ((line,),) = (group["lines"] for group in collect(sweep)["sweeps"][0]["curves"])
    assert line["cost"]["forwards"] == [[0, 4], [0, 8]]
    assert line["cost"]["passes"] == [[0, 4], [0, 8]]
    assert line["cost"]["queries"] == [[0, 4], [0, 64]]
    assert line["cost"]["tokens"] == [[0, 4], [0, 400]]
    assert line["cost"]["seconds"] == [[0, 4], [0, 1]]


def test_an_experiment_is_beside_its_published_numbers(sweep):
    write_run(sweep, "mezo", task="sst2", test=0.95, table=TABLE)
    write_run(sweep, "mezo", task="copa", test=None, table=TABLE)
    (paper,) = collect(sweep)["sweeps"][0]["papers"]
    assert [column["name"] for column in paper["header"]] == ["method", "COPA", "SST-2"]
    ((name, copa, sst2),) = paper["rows"]
    assert name == {"text": "MeZO"}
    assert copa == {"text": "-", "published": "88.0"}
    assert sst2 == {"text": "95.0", "published": "91.3", "difference": "+3.7"}


def test_a_table_of_a_paper_that_cannot_be_made_says_why(sweep):
    write_run(sweep, table={**TABLE, "published": "nothing"})
    (paper,) = collect(sweep)["sweeps"][0]["papers"]
    assert not paper["rows"]
    assert "there is no nothing" in paper["notes"][0]


def test_cells_that_have_not_begun_are_counted(sweep):
    write_run(sweep, name="first")
    write_planned(sweep, [sweep / "sst2" / "tiny" / name for name in ("first", "second", "third")])
    (found,) = collect(sweep)["sweeps"]
    assert (found["counts"], found["waiting"]) == ({"finished": 1}, 2)


def test_a_failed_run_has_its_reason_and_its_command(sweep):
    write_run(sweep, failure="step 3: the losses are nan", rows=ROWS[:2])
    run = only_run(sweep)
    assert (run["state"], run["note"]) == ("failed", "step 3: the losses are nan")
    assert run["command"].endswith("lozo-train method=lozo task=sst2 seed=s0")
    assert run["cost"]["forwards"] == 4


def test_a_run_that_was_stopped_says_how_far_it_came(sweep):
    write_run(sweep, test=None)
    run = only_run(sweep)
    assert (run["state"], run["progress"]) == ("stopped", [4, 4])


def test_cost_origin_environment_and_log_of_a_finished_run(sweep):
    write_run(sweep, lr=0.5)
    report = collect(sweep)
    (run,) = report["runs"]
    assert run["cost"]["gpu_hours"] == pytest.approx(1.0)  # two processes for half an hour
    assert run["cost"]["memory"] == 2**30
    assert run["given"] == ["method=lozo", "task=sst2", "seed=s0", "optimizer.lr=0.5"]
    assert "conf/optimizer/lozo.yaml" in run["values_from"]
    assert run["log"][-1] == "the end"
    assert report["environments"][run["environment"]]["versions"] == {"torch": "2"}
    keys = [key for key, _ in report["config"]]
    at = keys.index("optimizer.lr")
    assert report["config"][at][1][run["config"][at]] == "0.5"


def test_damaged_lines_of_metrics_are_said_and_left_out(sweep):
    folder = write_run(sweep)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[1] = lines[1][:9]
    lines[3] = lines[3].replace("0.5", "NaN")
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    run = only_run(sweep)
    assert run["problems"] == ["metrics.jsonl: 2 lines cannot be read and are left out (line 2, 4)"]
    assert run["curves"]["loss"]["s"] == [1, 4]


@pytest.mark.parametrize("name", ["result.json", ".hydra/hydra.yaml", ".hydra/config.yaml"])
def test_other_damaged_files_do_not_stop_the_report(sweep, name):
    folder = write_run(sweep)
    (folder / name).write_text("{damaged: [")
    write_run(sweep, seed=1)
    report = collect(sweep)
    assert len(report["runs"]) == 2


def test_long_curves_keep_their_extremes_and_say_how_many_points_there_were(sweep):
    losses = [1.0] * 5000
    losses[1234], losses[4321] = 9.0, -3.0
    write_run(sweep, rows=[row(step, loss) for step, loss in enumerate(losses, 1)])
    loss = only_run(sweep)["curves"]["loss"]
    assert (loss["of"], len(loss["s"]) <= 160) == (5000, True)
    assert loss["y"][loss["s"].index(1235)] == 9
    assert loss["y"][loss["s"].index(4322)] == -3


def test_pictures_are_embedded_once_and_large_ones_are_named(sweep):
    for seed, size in ((0, 10), (1, 10), (2, 500_000)):
        folder = write_run(sweep, seed=seed)
        (folder / "allocation.svg").write_text("<svg/>" + " " * size)
    report = collect(sweep)
    first, second, third = (run["figures"][0] for run in report["runs"])
    assert first == second == {"title": "How often each module was on", "image": 0}
    assert report["figures"][0].startswith("data:image/svg+xml;base64,")
    assert "allocation.svg" in third["left_out"]


def test_a_folder_that_did_not_change_is_read_once(sweep, monkeypatch):
    import lozo_bench.report.collect as module

    write_run(sweep)
    changing = write_run(sweep, seed=1, test=None)
    read, original = [], module.read_contents
    monkeypatch.setattr(
        module, "read_contents", lambda cell: read.append(cell.folder) or original(cell)
    )
    collector = Collector(sweep)
    first = collector.collect()["version"]
    assert collector.collect()["version"] == first
    with (changing / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row(5, 0.3)) + "\n")
    assert collector.collect()["version"] != first
    assert len(read) == 3
    assert read[-1] == changing


def test_a_folder_without_runs_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^\S+: no runs in it or below it$"):
        collect(tmp_path)
    with pytest.raises(UserError, match="no such folder; give the folder that contains the runs"):
        collect(tmp_path / "nothing")
