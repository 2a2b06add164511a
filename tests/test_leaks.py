"""Access tokens are neither taken from a command line nor written to a log, and never printed."""

from __future__ import annotations

import io
import logging

import pytest

from lozo_bench.leaks import Masked, found_in

TOKEN = "hf_" + "aB3" * 9


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """No secrets but the test's own."""
    for name in ("HF_TOKEN", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("argument", "where"),
    [
        (f"model.path={TOKEN}", "model.path"),
        (f"+model.token={TOKEN}", "model.token"),
        (f"++model.url=https://user:{TOKEN}@hub", "model.url"),
        (TOKEN, "argument 2"),
        (f"{TOKEN}=1", "argument 2"),
    ],
)
def test_what_looks_like_a_token_is_refused_by_the_name_of_its_key(argument, where):
    told = found_in(["-m", argument, "seed=s0"])
    assert told == (
        f"{where}: holds an access token, which would be written to the run's files; "
        "set HF_TOKEN instead"
    )


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "MY_TOKEN", "DB_PASSWORD", "client_secret"])
def test_a_value_that_the_environment_keeps_secret_is_refused(monkeypatch, name):
    assert found_in(["tracking.entity=s3cret+v.lue"]) is None
    monkeypatch.setenv(name, "s3cret+v.lue")
    told = found_in(["tracking.entity=me-s3cret+v.lue"])
    assert told is not None
    assert "s3cret" not in told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false"),  # too short to be one
        ("EDITOR", "reviews-long-name"),
        ("SSH_KEY_FILE", "/usr/bin"),  # a path that is there
        ("EMPTY_TOKEN", ""),
    ],
)
def test_ordinary_values_are_no_secrets(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert found_in([f"task.name={value}", "model.path=hf_short"]) is None


@pytest.fixture
def logged(monkeypatch):
    """A logger whose handler masks, and what it wrote."""
    monkeypatch.setenv("MY_PASSWORD", "open sesame!")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(Masked())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger, stream


def test_a_log_message_and_its_arguments_are_masked(logged):
    logger, stream = logged
    logger.info("with %s and %d%%: open sesame!", TOKEN, 5)
    assert stream.getvalue() == "with *** and 5%: ***\n"


def test_a_traceback_is_masked(logged):
    logger, stream = logged
    try:
        raise ValueError(f"no access with {TOKEN}")
    except ValueError:
        logger.exception("failed")
    assert "ValueError: no access with ***" in stream.getvalue()
    assert TOKEN not in stream.getvalue()


def test_other_messages_pass_unchanged(logged):
    logger, stream = logged
    logger.info("step %d", 3)
    assert stream.getvalue() == "step 3\n"
