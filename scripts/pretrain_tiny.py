"""Pre-train the tiny models, a causal OPT and a masked RoBERTa, each with its own tokenizer.

python scripts/pretrain_tiny.py                                      writes the two embedded models
python scripts/pretrain_tiny.py --corpus CORPUS --out DIR    writes DIR/masked_real
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pretrain import model, real, synthetic, tokenizer
from pretrain.rows import Row, encode

from lozo_bench.errors import UserError

EMBEDDED = Path(__file__).resolve().parents[1] / "lozo_bench" / "models" / "embedded"
CAUSAL = model.Plan(hidden=64, layers=3, heads=4, vocab=1280, positions=256, steps=4500)
TINY = {"causal": CAUSAL, "masked": replace(CAUSAL, rate=1e-3, init=0.1)}
REAL = model.Plan(
    hidden=64,
    layers=2,
    heads=4,
    vocab=4096,
    positions=256,
    steps=5000,
    rate=1e-3,
    init=0.1,  # 0.02 learns the answers later: loss 1.67 instead of 1.56 nats after 1500 steps
    spare_labelled=True,
)
SYNTHETIC_ROWS = 150_000
# A word that occurs this often in the tokenizer's training text becomes a single token.
_REPEATS = 2000


@dataclass(frozen=True)
class Job:
    """The training rows, the kind of model, the folder for it and a note for its model card."""

    kind: str
    rows: list[Row]
    token_words: str
    note: str
    folder: Path


def main() -> int:
    """Train what the command line asks for. Return the exit code, 2 for a mistake of the user."""
    args = _parser().parse_args()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        if args.corpus:
            if not args.out:
                raise UserError(
                    "--corpus requires --out: that model does not belong in the repository"
                )
            _make(_real(args), replace(REAL, steps=args.steps or REAL.steps), args)
            return 0
        for kind in [args.kind] if args.kind else ["causal", "masked"]:
            steps = args.steps or TINY[kind].steps
            _make(_synthetic(kind, args), replace(TINY[kind], steps=steps), args)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=("causal", "masked"), help="train only this model")
    parser.add_argument(
        "--corpus", type=Path, help="folder with real text: sst2/, kshot/ and superglue/"
    )
    parser.add_argument("--out", type=Path, help="parent folder for the models' folders")
    parser.add_argument("--steps", type=int, help="training steps, each on 64 rows")
    parser.add_argument("--rows", type=int, default=SYNTHETIC_ROWS, help="number of synthetic rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads; their number changes rounding"
    )
    return parser


def _synthetic(kind: str, args: argparse.Namespace) -> Job:
    name = "tiny_opt" if kind == "causal" else "tiny_roberta"
    rows = synthetic.rows(kind, args.rows, args.seed)
    return Job(kind, rows, "", synthetic.NOTE, (args.out or EMBEDDED) / name)


def _real(args: argparse.Namespace) -> Job:
    kind = args.kind or "masked"
    rows = real.rows(args.corpus, kind, args.seed)
    return Job(kind, rows, real.TOKEN_WORDS, real.NOTE, args.out / f"{kind}_real")


def _make(job: Job, plan: model.Plan, args: argparse.Namespace) -> None:
    """Train one model; once it is complete, replace the contents of its folder with it."""
    began = time.monotonic()
    torch.manual_seed(args.seed)
    texts = [row.text for row in job.rows]
    answers = sorted({row.answer for row in job.rows if row.answer})
    texts += [*(f" {word}" for word in job.token_words.split()), *answers] * _REPEATS
    words = tokenizer.train(texts, job.kind, plan.vocab)
    plan = replace(plan, vocab=words.get_vocab_size())
    encoded = encode(job.rows, words, plan.positions)
    net = model.build(job.kind, plan)
    loss = model.train(net, job.kind, encoded, plan, args.seed, job.folder.name)
    took = time.monotonic() - began
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=job.folder.parent) as made:
        part = Path(made) / job.folder.name
        net.save_pretrained(part)
        tokenizer.save(words, job.kind, part, plan.positions)
        card = _card(job, plan, net.num_parameters(), len(encoded), loss, took)
        (part / "README.md").write_text(card, encoding="utf-8")
        for path in part.iterdir():
            path.chmod(0o644)
        shutil.rmtree(job.folder, ignore_errors=True)
        part.rename(job.folder)
    print(f"{job.folder}: loss {loss:.3f} after {plan.steps} steps, {took:.0f} s")


def _card(job: Job, plan: model.Plan, size: int, rows: int, loss: float, took: float) -> str:
    family = "OPTForCausalLM" if job.kind == "causal" else "RobertaForMaskedLM"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    command = shlex.join(["python", "scripts/pretrain_tiny.py", *sys.argv[1:]])
    return f"""# {job.folder.name}

{family}, {size:,} parameters (hidden {plan.hidden}, {plan.layers} layers, {plan.heads} heads,
vocabulary {plan.vocab}, {plan.positions} positions, fp32, no dropout, tied embeddings).
{job.note}

Made by `{command}` (torch {torch.__version__}, {device}, {torch.get_num_threads()} threads):
{rows:,} rows, {plan.steps} steps of {plan.batch}, {took:.0f} s.
Mean loss of the last 100 steps: {loss:.3f}, the cross-entropy of tokens plus
{model.ANSWER_WEIGHT} times that of the answers.
"""


if __name__ == "__main__":
    sys.exit(main())
