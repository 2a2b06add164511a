"""Loading a tokenizer: the first token, padding, offsets, and the errors for bad files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lozo_bench.errors import UserError
from lozo_bench.models.tokenizer import load_tokenizer

Make = Callable[..., Path]
# The token ids are <s> 0, <pad> 1, </s> 2, <unk> 3, then 256 bytes from "!" on, so "a" is 4 + 64.
A = 68


@pytest.fixture(params=["vocab.json", "tokenizer.json"])
def opt(request: pytest.FixtureRequest, make: Make, tmp_path: Path) -> str:
    """Return an OPT tokenizer's folder, with the hub's files or with those of save_pretrained."""
    folder = make("opt")
    if request.param == "tokenizer.json":
        AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "saved")
        (tmp_path / "saved" / "config.json").write_text((folder / "config.json").read_text())
        folder = tmp_path / "saved"
        assert not (folder / "vocab.json").exists()
    return str(folder)


def test_opt_begins_with_its_own_token_by_default(opt: str) -> None:
    assert load_tokenizer(opt, None)("a")["input_ids"] == [2, A]


def test_opt_begins_with_the_published_token_if_configured(opt: str) -> None:
    tokenizer = load_tokenizer(opt, "<s>")
    assert tokenizer("a")["input_ids"] == [0, A]
    assert tokenizer.bos_token_id == 0
    assert tokenizer.eos_token_id == 2


def test_a_first_token_outside_the_vocabulary_is_refused(opt: str) -> None:
    with pytest.raises(UserError, match=r"model\.bos_token: given '<bos>'; allowed: a token in"):
        load_tokenizer(opt, "<bos>")


def test_a_first_token_that_the_tokenizer_does_not_put_first_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"model\.bos_token: given '</s>'.* \[0, 68, 2\]"):
        load_tokenizer(str(make("roberta")), "</s>")


def test_gpt2_begins_with_the_text_and_pads_with_its_end_token(make: Make) -> None:
    tokenizer = load_tokenizer(str(make("gpt2")), None)
    assert tokenizer("a")["input_ids"] == [A]
    assert tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer(["a", "ab"], padding=True)["attention_mask"] == [[1, 0], [1, 1]]


def test_gpt2_can_get_a_first_token(make: Make) -> None:
    tokenizer = load_tokenizer(str(make("gpt2")), "<|endoftext|>")
    assert tokenizer("a")["input_ids"] == [260, A]


def test_the_tokenizers_own_padding_token_is_kept(make: Make) -> None:
    assert load_tokenizer(str(make("roberta")), None).pad_token == "<pad>"


@pytest.mark.parametrize("arch", ["opt", "roberta", "gpt2", "llama"])
def test_a_folder_without_tokenizer_files_is_refused(arch: str, make: Make) -> None:
    with pytest.raises(UserError, match=r"model\.path: "):
        load_tokenizer(str(make(arch, tokenizer=None)), None)


@pytest.mark.parametrize("text", ["{bad", "{}", "[]"])
def test_a_damaged_tokenizer_is_refused(text: str, make: Make) -> None:
    folder = make("opt", tokenizer=None)
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=r"model\.path: cannot load"):
        load_tokenizer(str(folder), None)


def test_a_damaged_vocabulary_is_refused(make: Make) -> None:
    folder = make("opt")
    (folder / "vocab.json").write_text('{"<s>" 0}')
    with pytest.raises(UserError, match=r"model\.path: cannot load"):
        load_tokenizer(str(folder), None)


def test_tokens_have_character_offsets(opt: str) -> None:
    encoded = load_tokenizer(opt, "<s>")("ab", return_offsets_mapping=True)
    assert list(encoded["offset_mapping"])[1:] == [(0, 1), (1, 2)]


@pytest.mark.hub
def test_the_real_opt_tokenizer_begins_with_the_configured_token() -> None:
    """Sequences begin with OPT's </s> (2), or with <s> (0) as in MeZO's published runs."""
    assert load_tokenizer("facebook/opt-125m", None)("It was")["input_ids"][0] == 2
    assert load_tokenizer("facebook/opt-125m", "<s>")("It was")["input_ids"][0] == 0
