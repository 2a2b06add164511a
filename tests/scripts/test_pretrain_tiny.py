"""The pre-training script and the two models from it that the package contains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import programs
import pytest
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from lozo_bench.tasks.synthetic import Synthetic

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "pretrain_tiny.py"
EMBEDDED = ROOT / "lozo_bench" / "models" / "embedded"
CORPUS = ROOT / ".." / "shared" / "data"
AUTO = {"tiny_opt": AutoModelForCausalLM, "tiny_roberta": AutoModelForMaskedLM}
LABEL_WORDS = (
    "terrible", "great", "No", "Yes", "Maybe",
    "Description", "Entity", "Expression", "Human", "Location", "Number",
)  # fmt: skip

sys.path.insert(0, str(SCRIPT.parent))
from pretrain import real, synthetic  # noqa: E402


def _run(*arguments: str) -> programs.Finished:
    return programs.run(ROOT, *arguments, script=SCRIPT)


def _load(folder: Path) -> tuple[Any, dict[str, Any]]:
    model, info = AUTO[folder.name].from_pretrained(folder, output_loading_info=True)
    return model, info


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    done = _run("--steps", "3", "--rows", "2000", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("name", AUTO)
def test_a_short_run_writes_a_complete_model_with_a_tied_head(made: Path, name: str) -> None:
    model, info = _load(made / name)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("name", AUTO)
def test_a_short_run_writes_only_its_two_models(made: Path, name: str) -> None:
    assert sorted(path.name for path in made.iterdir()) == ["tiny_opt", "tiny_roberta"]
    assert "python scripts/pretrain_tiny.py --steps 3" in (made / name / "README.md").read_text()


def test_the_same_command_writes_the_same_weights(made: Path, tmp_path: Path) -> None:
    arguments = ("--kind", "masked", "--steps", "3", "--rows", "2000", "--out", str(tmp_path))
    assert _run(*arguments).returncode == 0
    again = (tmp_path / "tiny_roberta" / "model.safetensors").read_bytes()
    assert again == (made / "tiny_roberta" / "model.safetensors").read_bytes()


def test_real_text_without_an_output_folder_is_refused_in_one_line() -> None:
    done = _run("--corpus", "nowhere")
    assert done.returncode == 2
    assert done.stderr == "--corpus requires --out: that model does not belong in the repository\n"


def test_a_corpus_folder_without_the_data_is_refused_in_one_line(tmp_path: Path) -> None:
    done = _run("--corpus", str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", AUTO)
def test_an_embedded_model_is_complete_tied_and_at_most_four_megabytes(name: str) -> None:
    model, info = _load(EMBEDDED / name)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert (EMBEDDED / name / "model.safetensors").stat().st_size <= 4_000_000


@pytest.mark.parametrize("name", AUTO)
def test_every_label_word_is_one_token_of_the_embedded_tokenizers(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED / name)
    for word in LABEL_WORDS:
        assert len(tokenizer(f" {word}", add_special_tokens=False).input_ids) == 1, word


def test_the_embedded_opt_tokenizer_begins_every_text_with_id_zero() -> None:
    for extra in ({}, {"bos_token": "<s>"}):
        tokenizer = AutoTokenizer.from_pretrained(EMBEDDED / "tiny_opt", **extra)
        assert tokenizer("The plot").input_ids[0] == tokenizer.bos_token_id == 0
        assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 2, 3)


def test_the_embedded_roberta_tokenizer_adds_both_special_tokens_and_knows_its_mask() -> None:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED / "tiny_roberta")
    ids = tokenizer("It was<mask>.").input_ids
    assert (ids[0], ids[-1]) == (0, 2)
    assert ids.count(tokenizer.mask_token_id) == 1


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_pretraining_answers_are_no_label_words_and_its_sentences_are_in_no_split(
    kind: str,
) -> None:
    rows = synthetic.rows(kind, 20_000, seed=0)
    assert not {row.answer.strip() for row in rows} & set(LABEL_WORDS)
    splits = Synthetic("reviews", train=1000, dev=500, test=500, seed=0).splits()
    held = {row.fields["sentence"] for row in splits.train + splits.dev + splits.test}
    leads = (" It was", " Overall it was", " We found it", " It was great.", " It was terrible.")
    seen = {row.before.removesuffix(lead) for row in rows for lead in leads}
    assert not seen & held


def test_label_words_after_reviews_in_pretraining_do_not_depend_on_the_class() -> None:
    texts = [row.text for row in synthetic.rows("causal", 60_000, seed=0) if not row.answer]
    shares = []
    for verbs in (("loved", "enjoyed", "admired", "liked"), ("hated", "disliked", "resented")):
        single = [t for t in texts if any(t.startswith(f"I {verb} the") for verb in verbs)]
        single = [t for t in single if " but " not in t and ", " not in t and " It was " in t]
        assert len(single) > 30
        shares.append(sum(text.endswith("It was great.") for text in single) / len(single))
    assert abs(shares[0] - shares[1]) < 0.25


def test_a_held_out_text_excludes_copies_and_six_common_words_but_not_five() -> None:
    kept = real.HeldOut()
    kept.add("The quick brown fox jumps over a dog.")
    kept.add("hip")
    assert kept.touches("the quick  brown fox jumps over a DOG")
    assert kept.touches("then quick brown fox jumps over a log")
    assert not kept.touches("then quick brown fox jumps over the log")
    assert kept.touches("Hip!")
    assert not kept.touches("hip and funny")


def test_no_held_out_row_is_in_the_real_pretraining_text() -> None:
    if not CORPUS.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    rows = real.rows(CORPUS, "masked", seed=0)
    trained = {row.before.removesuffix(" It was").strip() for row in rows}
    for name in ("512-42/train", "512-42/dev", "16-13/train", "16-21/dev", "16-42/test"):
        lines = (CORPUS / "kshot" / "SST-2" / f"{name}.tsv").read_text().splitlines()[1:]
        assert lines
        assert not trained & {line.split("\t")[0].strip() for line in lines}
    words = {row.answer.strip() for row in rows}
    assert not words & {*LABEL_WORDS, "bad", "okay", "good"}
