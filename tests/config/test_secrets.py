"""Access tokens are refused on the command line and masked in logs."""

from __future__ import annotations

import io
import logging

import pytest

from lozo_bench.config.secrets import SecretFilter, find_secret

TOKEN = "hf_" + "aB3" * 9


@pytest.fixture(autouse=True)
def without_secrets(monkeypatch):
    """Remove secrets from the environment except those of the test."""
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
def test_a_hugging_face_token_is_refused_and_its_key_is_named(argument, where):
    message = find_secret(["-m", argument, "seed=s0"])
    assert message == (
        f"{where}: contains an access token, which would be written to the run's files; "
        "set HF_TOKEN instead"
    )


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "MY_TOKEN", "DB_PASSWORD", "client_secret"])
def test_a_secret_value_of_the_environment_is_refused(monkeypatch, name):
    assert find_secret(["tracking.entity=s3cret+v.lue"]) is None
    monkeypatch.setenv(name, "s3cret+v.lue")
    message = find_secret(["tracking.entity=me-s3cret+v.lue"])
    assert message is not None
    assert "s3cret" not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false"),  # too short to be a secret
        ("EDITOR", "reviews-long-name"),
        ("SSH_KEY_FILE", "/usr/bin"),  # a path that exists
        ("EMPTY_TOKEN", ""),
    ],
)
def test_ordinary_values_are_accepted(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert find_secret([f"task.name={value}", "model.path=hf_short"]) is None


@pytest.fixture
def logged(monkeypatch):
    """A logger whose handler masks tokens, and the stream that it writes to."""
    monkeypatch.setenv("MY_PASSWORD", "open sesame!")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(SecretFilter())
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


def test_other_messages_are_not_changed(logged):
    logger, stream = logged
    logger.info("step %d", 3)
    assert stream.getvalue() == "step 3\n"
