"""The published numbers are those of the papers, cell by cell, and stand beside the right table."""

from __future__ import annotations

import csv
import textwrap

import pytest

from lozo_bench.config.schema import Shown
from lozo_bench.errors import UserError
from lozo_bench.tables.published import PUBLISHED, name_and_show, read_published

# LOZO's Tables 1 to 3, as typed off the slides of one of its authors. In Table 1 a task stands for
# its accuracy, and TASK_gb for the memory of its runs.
TABLE_1 = """
    method,mnli,mnli_gb,snli,snli_gb
    lozo,61.6,2.83,73.4,2.83
    lozo_m,62.7,2.84,74.0,2.84
    mezo,56.7,3.00,68.5,3.00
    mezo_m,58.9,5.89,69.6,5.89
    mezo_adam,62.6,7.42,72.7,7.42
"""
TABLE_2 = """
    method,sst2,rte,cb,boolq,wsc,wic,multirc,copa,record,squad,drop
    zero_shot,58.8,59.6,46.4,59.0,38.5,55.0,46.9,80.0,81.0,46.2,14.6
    icl,87.0,62.1,57.1,66.9,39.4,50.5,53.1,87.0,82.3,75.9,29.5
    mezo,91.3,68.2,66.1,68.1,61.5,59.4,59.4,88.0,81.3,81.8,31.3
    mezo_lora,89.6,67.9,67.8,73.5,63.5,60.2,61.3,84.1,81.5,82.1,31.3
    lozo,91.7,70.4,69.6,71.9,63.5,60.8,63,89.0,81.3,84.9,30.7
    ft,91.8,70.9,84.1,76.9,63.5,70.1,71.1,79.0,74.1,84.9,31.3
"""
TABLE_3 = """
    model,method,sst2,rte,boolq,wsc,wic,squad
    opt_30b,zero_shot,56.7,52.0,39.1,38.5,50.2,46.5
    opt_30b,icl,81.9,66.8,66.2,56.7,51.3,78.0
    opt_30b,mezo,90.7,64.3,68.2,63.5,56.3,86.1
    opt_30b,lozo,92.8,65.3,72.3,64.4,57.2,85.6
    opt_66b,zero_shot,57.5,67.2,66.8,43.3,50.6,48.1
    opt_66b,icl,89.3,65.3,62.8,52.9,54.9,81.3
    opt_66b,mezo,92.0,71.5,73.8,64.4,57.8,84.0
    opt_66b,lozo,92.5,74.0,74.5,63.5,59.4,85.8
"""


def cells(text, keys):
    """Return the numbers of a table by row and column."""
    header, *rows = csv.reader(textwrap.dedent(text).strip().splitlines())
    return {
        (tuple(row[:keys]), name): float(number)
        for row in rows
        for name, number in zip(header[keys:], row[keys:], strict=True)
    }


def ours(name, keys, show=Shown.test):
    return {
        (row, column): float(number)
        for (row, (column,)), number in read_published(name, keys, show).numbers.items()
    }


def test_lozos_table_1_has_its_20_accuracies_and_memories():
    printed = cells(TABLE_1, 1)
    accuracy = ours("lozo_roberta_k16", 1)
    memory = ours("lozo_roberta_k16", 1, Shown.memory)
    assert len(printed) == 20
    for (method, name), number in printed.items():
        of_task = memory if name.endswith("_gb") else accuracy
        assert of_task[method, f"{name.removesuffix('_gb')}_kshot"] == number
    assert len(memory) == 10


@pytest.mark.parametrize(
    ("name", "table", "keys", "count"),
    [("lozo_opt13b", TABLE_2, 1, 66), ("lozo_opt30b_66b", TABLE_3, 2, 48)],
)
def test_lozos_tables_2_and_3_are_complete(name, table, keys, count):
    assert ours(name, keys) == cells(table, keys)
    assert len(ours(name, keys)) == count


def test_published_costs_stand_beside_the_table_of_these_costs_only():
    assert "GB as printed" in read_published("lozo_roberta_k16", 1, Shown.memory).source
    assert read_published("lozo_roberta_k16", 1, Shown.minutes).numbers == {}
    assert read_published("lozo_opt13b", 1, Shown.memory).numbers == {}
    with pytest.raises(UserError, match=r"no lozo_opt13 \(did you mean 'lozo_opt13b'\?\)"):
        read_published("lozo_opt13", 1, Shown.memory)


def test_a_file_says_by_its_name_what_it_stands_beside():
    memory = PUBLISHED / "lozo_roberta_k16_memory.csv"
    assert name_and_show(memory) == ("lozo_roberta_k16", Shown.memory)
    assert name_and_show(PUBLISHED / "mezo_opt13b.csv") == ("mezo_opt13b", Shown.test)
