"""What sets runs apart, from their overrides."""

from __future__ import annotations

from lozo_bench.runs.apart import IN_NAME, IN_PATH, chosen, labels, own_label, spelled


def test_runs_are_told_apart_by_what_differs_under_the_shortest_clear_name():
    runs = [
        chosen(["optimizer.lr=1e-3", "steps=60", "seed=s0", "tracking=files", "hydra.job.num=1"]),
        chosen(["optimizer.lr=0.001", "steps=60", "seed=s1", "task.source.train=8"]),
        chosen(["+optimizer.lr=1e-4", "steps=60", "seed=s1", "~method"]),
    ]
    assert labels(runs, IN_NAME) == ["lr=1e-3", "lr=1e-3 train=8", "lr=1e-4"]
    assert labels(runs[:2], IN_NAME) == ["", "train=8"]
    assert labels(runs[:1]) == [""]
    assert labels([{"a.lr": "1"}, {"b.lr": "2"}]) == ["a.lr=1", "b.lr=2"]


def test_small_numbers_are_written_as_they_are_typed():
    given = ["0.001", "1e-06", "2.5e-05", "-0.00125", "0.1", "100", "0", "1.2.3", "s0", "1e3"]
    assert [spelled(value) for value in given] == [
        "1e-3", "1e-6", "2.5e-5", "-1.25e-3", "0.1", "100", "0", "1.2.3", "s0", "1e3",
    ]  # fmt: skip


def test_a_list_of_tasks_is_one_value():
    listed = ["task=several", "+task@task.tasks.a=a", "+task@task.tasks.b=b", "rank.value=3"]
    assert chosen(listed) == {"task": "[a,b]", "rank.value": "3"}


def test_a_runs_own_label_leaves_out_what_its_folder_says():
    given = ["optimizer=lozo", "task=rte", "seed.value=3", "optimizer.lr=1e-3", "rerun=all"]
    assert own_label(chosen(given)) == "lr=1e-3"
    assert "rank" in IN_PATH
