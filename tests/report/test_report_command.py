"""``lozo-report`` writes one file, or says in one line why it cannot."""

from __future__ import annotations

import sys
import threading

import pytest
from report_folders import write_run

from lozo_bench.report import main


def report(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["lozo-report", *words])
    main.main()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nope"], "nope: no such folder; give the folder that contains the runs"),
        (["empty"], "empty: no runs in it or below it"),
        (["runs", "--out", "no/such/r.html"], "--out: no/such/r.html cannot be written"),
        (["runs", "--watch", "--port", "-1"], "--port: given -1; it cannot be used"),
    ],
)
def test_a_mistake_is_one_line(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "runs")
    with pytest.raises(SystemExit) as stop:
        report(monkeypatch, *words)
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(line)
    assert printed.count("\n") == 1


def test_the_file_is_written_and_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "outputs")
    report(monkeypatch)
    assert capsys.readouterr().out.startswith("report.html: 1 run, ")
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_ctrl_c_ends_watching_in_one_line(tmp_path, monkeypatch, capsys):
    def interrupted(self, timeout=None):
        raise KeyboardInterrupt

    write_run(tmp_path)
    monkeypatch.setattr(main, "wait", lambda: interrupted(None))
    before = threading.active_count()
    report(monkeypatch, str(tmp_path), "--watch", "--port", "0")
    address, *rest = capsys.readouterr().out.splitlines()
    assert address.startswith("http://127.0.0.1:")
    assert [line for line in rest if line] == ["ended; the runs go on"]
    assert threading.active_count() <= before
