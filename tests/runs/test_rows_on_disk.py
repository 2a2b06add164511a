"""What remains of metrics.jsonl and events.jsonl when a run continues."""

from __future__ import annotations

import json

import pytest

from lozo_bench.errors import UserError
from lozo_bench.runs.history import History
from lozo_bench.runs.journal import Log
from lozo_bench.runs.rows import prepare_rows

EVALUATIONS = {
    (0, "zero_shot"): {"accuracy": 0.5, "loss": 1.0},
    (2, "dev"): {"accuracy": 0.75, "loss": 0.5},
    (4, "dev"): {"accuracy": 1.0, "loss": 0.25},
}
ROWS = [
    {"step": 0, "forward_passes": 0, "zero_shot_accuracy": 0.5, "zero_shot_loss": 1.0},
    {"step": 1, "loss": 0.9, "forward_passes": 2},
    {"step": 2, "loss": 0.8, "forward_passes": 4},
    {"step": 2, "forward_passes": 4, "dev_accuracy": 0.75, "dev_loss": 0.5},
    {"step": 3, "loss": 0.7, "forward_passes": 6},
    {"step": 4, "loss": 0.6, "forward_passes": 8},
    {"step": 4, "forward_passes": 8, "dev_accuracy": 1.0, "dev_loss": 0.25},
]
LATER = [{"step": 5, "loss": 0.5, "forward_passes": 10}]
EVENTS = [{"step": step, "event": "swap", "layer": "h.0"} for step in (1, 3, 5)]


@pytest.fixture
def past():
    forwards = {(step, name): 2 * step for step, name in EVALUATIONS}
    return History(Log(evaluations=dict(EVALUATIONS), forwards=forwards), None, known=4)


def lines(rows):
    return [json.dumps(row).encode() for row in rows]


def prepared(folder, past, metrics, name="metrics.jsonl"):
    """Return the rows that remain of these lines."""
    (folder / name).write_bytes(b"".join(line + b"\n" for line in metrics))
    prepare_rows(folder, past)
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_final_rows_are_kept_and_later_ones_removed(tmp_path, past, caplog):
    assert prepared(tmp_path, past, lines([*ROWS, *LATER])) == ROWS
    assert prepared(tmp_path, past, lines(EVENTS), "events.jsonl") == EVENTS[:2]
    assert not caplog.text


@pytest.mark.parametrize("damage", [b"\xff\xfe", b'{"step": 2', b"[" * 10**5, b"{}", b"\x85"])
@pytest.mark.parametrize("at", range(len(ROWS)))
def test_a_damaged_row_takes_no_other_with_it(tmp_path, past, caplog, damage, at):
    written = lines(ROWS)
    written[at] = damage
    again = "loss" not in ROWS[at]  # the journal has evaluations
    assert prepared(tmp_path, past, written) == (ROWS if again else ROWS[:at] + ROWS[at + 1 :])
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == damage + b"\n"
    (record,) = caplog.records
    assert f"line {at + 1} is damaged" in record.getMessage()


def test_a_changed_digit_in_an_evaluation_is_corrected(tmp_path, past):
    written = lines([*ROWS[:3], {**ROWS[3], "dev_accuracy": 0.95}, *ROWS[4:]])
    assert prepared(tmp_path, past, written) == ROWS


def test_evaluations_are_restored_if_the_file_is_gone(tmp_path, past, caplog):
    prepare_rows(tmp_path, past)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [ROWS[0], ROWS[3], ROWS[6]]
    assert "metrics.jsonl is missing" in caplog.text


def test_half_a_row_at_the_end_is_removed_without_a_word(tmp_path, past, caplog):
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([*lines(ROWS), b'{"step": 5, "lo']))
    prepare_rows(tmp_path, past)
    assert (tmp_path / "metrics.jsonl").read_bytes().splitlines() == lines(ROWS)
    assert not caplog.text


def test_a_damaged_event_takes_no_other_with_it(tmp_path, past):
    written = [lines(EVENTS)[0], b"\xc3", *lines(EVENTS)[1:]]
    assert prepared(tmp_path, past, written, "events.jsonl") == EVENTS[:2]


def test_a_folder_in_place_of_the_file_is_one_line(tmp_path, past):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl: is a folder where a run has a file"):
        prepare_rows(tmp_path, past)
