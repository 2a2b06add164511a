"""Loading a tokenizer: the first token, padding, offsets, and the errors for bad files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

from lozo_bench.errors import UserError
from lozo_bench.models.tokenizer import load_tokenizer, save_tokenizer

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


def test_a_text_has_the_same_tokens_every_time(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Also with BPE dropout in tokenizer.json."""
    folder, text = make("opt", tokenizer=None), "aba" * 20
    words = {"</s>": 0, "a": 1, "b": 2, "ab": 3, "aba": 4}
    bpe = models.BPE(words, [("a", "b"), ("ab", "a")], dropout=0.5)
    Tokenizer(bpe).save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "</s>", "tokenizer_class": "TokenizersBackend"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    as_saved = AutoTokenizer.from_pretrained(folder)
    assert len({tuple(as_saved(text)["input_ids"]) for _ in range(20)}) > 1
    tokenizer = load_tokenizer(str(folder), None)
    assert {tuple(tokenizer(text)["input_ids"]) for _ in range(20)} == {(4,) * 20}
    assert "splits texts at random (dropout=0.5 in" in caplog.text


def test_rows_can_be_padded_without_a_pad_or_end_token(make: Make, tmp_path: Path) -> None:
    """Any word pads as well as another, as its positions are masked; it is not written."""
    folder = make("gpt2", tokenizer=None)
    Tokenizer(models.BPE({"!": 0, "a": 1, "b": 2}, [])).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    tokenizer = load_tokenizer(str(folder), None)
    assert tokenizer.pad_token_id == 0
    assert tokenizer.decode([1, 0, 2], skip_special_tokens=True) == "a ! b"
    save_tokenizer(tokenizer, tmp_path / "saved")
    assert tokenizer.pad_token_id == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").special_tokens_map == {}
    with pytest.raises(UserError, match="a classifier finds the end of a row by its padding; what"):
        load_tokenizer(str(folder), None, finds_end=True)


def test_a_tokenizer_that_only_another_package_reads_says_how_to_convert_it(
    make: Make, tmp_path: Path
) -> None:
    folder = make("llama", tokenizer=None)
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    with pytest.raises(UserError, match=r"no tokenizer\.json.*pip install them, or write") as error:
        load_tokenizer(str(folder), None)
    assert f"T.from_pretrained('{folder}').save_pretrained('{folder}')" in str(error.value)
