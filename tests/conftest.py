"""Tests stay off the network: the hub is asked only by those marked ``hub``, with LOZO_HUB=1."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys

import pytest
from quick import thorough

HUB = os.environ.get("LOZO_HUB") == "1"
if not HUB:
    # Here, and not in a fixture: huggingface_hub reads it once, when it is imported.
    os.environ["HF_HUB_OFFLINE"] = "1"


gc.disable()  # until everything is imported, see below
# Two test processes share two cores; torch's threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)  # before -m chooses by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is left to `make test-all`, and skip what needs the hub if it was not asked for."""
    names = [item.nodeid.removeprefix("tests/") for item in items]
    for item, late in zip(items, thorough(names), strict=True):
        if late:
            item.add_marker(pytest.mark.thorough)
    if HUB:
        return
    for item in items:
        if item.get_closest_marker("hub"):
            item.add_marker(pytest.mark.skip(reason="asks the Hugging Face hub; set LOZO_HUB=1"))


def pytest_collection_finish() -> None:
    """Leave all that is imported out of garbage collections, which take 0.3 s longer with it."""
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)  # some libraries complain about what is left at the end


@pytest.fixture
def console(tmp_path, monkeypatch, capsys):
    """Run a command in this process: console(main, "lozo-x", "--help") -> (exit code, out, err)."""
    monkeypatch.chdir(tmp_path)

    def run(main, name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Run the entry point in this process: command("steps=3") -> (exit code, out, err)."""
    from hydra.core.global_hydra import GlobalHydra

    from lozo_bench import train

    monkeypatch.chdir(tmp_path)
    handlers = list(logging.root.handlers)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lozo-train", *arguments])
        code = 0
        try:
            train.main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            GlobalHydra.instance().clear()
            _close_handlers_but(handlers)
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run


def _close_handlers_but(kept):
    for handler in set(logging.root.handlers) - set(kept):
        handler.close()
    logging.root.handlers = list(kept)
