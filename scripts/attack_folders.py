"""Damage the files in runs' folders in every possible small way, and run the same command again.

python scripts/attack_folders.py --at-once 2 --json attacks.json

A tiny run of LOZO (with its log only), of AdamW and of LOZO-M (both with full states) is made, once
finished and once interrupted. Then every bit of every file in the folder is flipped, every file is
cut after every byte, removed, and replaced by a folder, a pipe and a link to nothing; after each
damage the command is repeated, and for finished runs the tested weights are also rebuilt, as
`lozo-export` does. The verdicts:

    unread   the command did not open the file when nothing was damaged: one in a hundred is tried
    right    the result equals that of the undisturbed run, bit for bit
    again    the same, but the run began again: its damaged files are kept under other names
    told     one line says what is damaged, and all other files are as they were
    WRONG, TRACEBACK, HANG, LOST (a file that was not damaged is gone or changed)

Exit code 1 if there is any of the last four. A run whose remaining steps would begin from a history
that was seen before, bit for bit, is not made once more: its verdict is that of the first one.
`--stride 8` tries every eighth bit and byte only.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
SHORT = [
    "model=local", "tuning=prompt", "tuning.tokens=2", "steps=4", "eval_every=2", "log_every=1",
    "batch_size=2", "checkpoint.every=1", "task.source.train=8", "task.source.dev=4",
    "task.source.test=4", "tracking=files", "model.device=cpu",
]  # fmt: skip
METHODS = {
    "lozo": ["optimizer=lozo", "optimizer.nu=2", "optimizer.lr=1e-2", "checkpoint.every=2"],
    "adamw": ["optimizer=adamw", "optimizer.lr=1e-2"],
    "lozo_m": ["optimizer=lozo_m", "optimizer.nu=2", "optimizer.lr=1e-2", "checkpoint.kind=full"],
}
COMPARED = ("metrics", "best_step", "forwards", "backwards", "tokens", "bad_steps", "weights")
BAD = ("WRONG", "TRACEBACK", "HANG", "LOST")
HANG_S = 60.0
TRIED_UNREAD = 101
ASIDE = (".damaged", ".unusable")
REPLACED = ("folder", "pipe", "link to nothing")

Files = dict[str, bytes]


class Hang(BaseException):
    """A trial took longer than `HANG_S`."""


class Seen(Exception):  # noqa: N818  # not an error
    """The rest of the run would be one that was already made; ``verdict`` is how it ended."""

    def __init__(self, verdict: str) -> None:
        super().__init__(verdict)
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class Damage:
    """What is done to a file: its new content; None to remove it; or a kind of `REPLACED`."""

    file: str
    content: bytes | str | None


@dataclass(frozen=True, slots=True)
class Case:
    """A method's run, interrupted or finished, and the command that is repeated in its folder."""

    method: str
    finished: bool
    command: str

    def __str__(self) -> str:
        return f"{self.method}, {'finished' if self.finished else 'interrupted'}, {self.command}"


CASES = [
    Case(method, finished, command)
    for method in METHODS
    for finished, command in ((False, "train"), (True, "train"), (True, "replay"))
]


def main() -> int:
    """Attack every case, print the counts and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--at-once", type=int, default=2, help="cases at the same time")
    parser.add_argument("--stride", type=int, default=1, help="try every n-th bit and byte")
    parser.add_argument("--only", default="", help="only cases with this text in their name")
    parser.add_argument("--files", default="", help="only files with this text in their name")
    parser.add_argument("--json", type=Path, help="write the counts into this file after each case")
    args = parser.parse_args()
    chosen = [case for case in CASES if args.only in str(case)]
    if not chosen:
        print(f"--only: {args.only!r} is in none of: {'; '.join(map(str, CASES))}", file=sys.stderr)
        return 2
    prepare_process()
    with tempfile.TemporaryDirectory(dir=memory_folder()) as name:
        folder = Path(name)
        make_model(folder / "model")
        counts, examples = attack_all(
            chosen, folder, args.stride, args.files, args.at_once, args.json
        )
    report(counts, examples)
    return 1 if any(verdict in BAD for _, _, verdict in counts) else 0


def memory_folder() -> str | None:
    """Return a folder in memory, where syncing to disk costs nothing; None: the usual one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def prepare_process() -> None:
    """Import everything once and be silent."""
    import torch
    from hydra.core.config_store import ConfigStore

    from lozo_bench.config.resolvers import register_resolver
    from lozo_bench.config.schema import Config
    from lozo_bench.training import replay, run  # noqa: F401

    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    ConfigStore.instance().store(name="schema", node=Config)
    register_resolver()


def make_model(folder: Path) -> None:
    """Make a model of one layer of 8 with random weights, and the embedded model's tokenizer."""
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    embedded = ROOT / "lozo_bench" / "models" / "embedded" / "tiny_opt"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(embedded / name, folder)
    config = OPTConfig.from_pretrained(
        embedded, hidden_size=8, word_embed_proj_dim=8, ffn_dim=8, num_hidden_layers=1,
        num_attention_heads=1, max_position_embeddings=128,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        OPTForCausalLM(config).save_pretrained(folder)


def attack_all(
    chosen: Sequence[Case], folder: Path, stride: int, files: str, at_once: int, out: Path | None
) -> tuple[Counter[tuple[str, str, str]], dict[str, str]]:
    """Return the counts by case, file and verdict, and an example of each that must not be.

    After each case they are also written to ``out``, so that an interruption does not lose them.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    examples: dict[str, str] = {}
    context = multiprocessing.get_context("fork")
    done, total = context.Value("q", 0), context.Value("q", 0)
    with (
        Progress(console=Console(stderr=True)) as progress,
        ProcessPoolExecutor(at_once, context, _share, (done, total)) as pool,
    ):
        bar = progress.add_task("damages", total=None)
        left = {
            pool.submit(attack_case, case, folder / "model", folder / f"run{index}", stride, files)
            for index, case in enumerate(chosen)
        }
        while left:
            ended, left = wait(left, timeout=0.5)
            progress.update(bar, completed=done.value, total=total.value or None)
            for job in ended:
                found, seen = job.result()
                counts += found
                examples |= seen
                if out is not None:
                    write_counts(out, counts, examples)
    return counts, examples


def write_counts(path: Path, counts: Counter[tuple[str, str, str]], examples: object) -> None:
    """Write the counts so far."""
    rows = [[*key, n] for key, n in sorted(counts.items())]
    path.write_text(json.dumps({"counts": rows, "examples": examples}, indent=1) + "\n")


_shared: list[Any] = []


def _share(*values: Any) -> None:
    _shared[:] = values
    signal.signal(signal.SIGALRM, _hang)


def _hang(*_: object) -> None:
    raise Hang


def attack_case(
    case: Case, model: Path, folder: Path, stride: int, files: str
) -> tuple[Counter[tuple[str, str, str]], dict[str, str]]:
    """Try every damage of a case, with this model and in this folder."""
    attack = Attack(case, model, folder)
    todo = [each for each in damages(attack.template, stride) if files in each.file]
    _add(1, len(todo))
    counts: Counter[tuple[str, str, str]] = Counter()
    examples: dict[str, str] = {}
    for number, damage in enumerate(todo):
        if attack.is_unread(damage) and number % TRIED_UNREAD:
            counts[str(case), damage.file, "unread"] += 1
            _add(0, 1)
            continue
        verdict, why = attack.trial(damage)
        counts[str(case), damage.file, verdict] += 1
        if verdict in BAD:
            examples.setdefault(f"{case}, {damage.file}: {verdict}", why)
        _add(0, 1)
    return counts, examples


def _add(which: int, count: int) -> None:
    if _shared:
        with _shared[which].get_lock():
            _shared[which].value += count


def damages(template: Files, stride: int) -> Iterator[Damage]:
    """Yield every flipped bit, every cut and every replacement of every file."""
    for name, data in template.items():
        yield Damage(name, None)
        for kind in REPLACED:
            yield Damage(name, kind)
        for length in range(0, len(data), stride):
            yield Damage(name, data[:length])
        for bit in range(0, 8 * len(data), stride):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            yield Damage(name, bytes(flipped))


class Attack:
    """A folder that is damaged and repaired again and again.

    Args:
        case: what is run.
        model: the folder of the model.
        folder: where it is run.
    """

    def __init__(self, case: Case, model: Path, folder: Path) -> None:
        from lozo_bench.training.plan import plan_cell

        self.case, self.folder = case, folder
        self.config = composed([f"model.path={model}", *SHORT, *METHODS[case.method]])
        self.cell = plan_cell(self.config, folder)
        self.seen: dict[str, str] = {}
        self.key = ""
        self.built: Any = None
        self.stored: dict[bytes, Any] = {}
        self.undisturbed = self._undisturbed()
        self.rows = evaluations(folder)
        if not case.finished:
            self._interrupt()
        self.template = files_in(folder)
        self.stamps: dict[str, Any] = {}
        harmless = Damage("train.log", b"another line")
        self._damage(harmless)
        with opened_files(folder) as opened:
            self._verdict(harmless)
        self.opened = opened
        self.built = None  # steps were made with it

    def is_unread(self, damage: Damage) -> bool:
        """Return whether a file was not opened, and its content is what is damaged."""
        return isinstance(damage.content, bytes) and damage.file not in self.opened

    def _undisturbed(self) -> dict[str, Any]:
        from lozo_bench.training.run import run

        make_hydra_files(self.folder, self.config)
        result = run(self.config, self.folder)
        assert result is not None
        return result

    def _interrupt(self) -> None:
        """Leave the run that was stopped after the dev evaluation of step 2."""
        from lozo_bench.errors import Stopped
        from lozo_bench.training.run import run
        from lozo_bench.training.trainer import Trainer

        original = Trainer._make_step

        def stopped(trainer: Trainer, step: int, numbers: Sequence[int]) -> None:
            if step == 4:
                raise Stopped("SIGTERM")
            original(trainer, step, numbers)

        shutil.rmtree(self.folder)
        make_hydra_files(self.folder, self.config)
        with mock.patch.object(Trainer, "_make_step", stopped), contextlib.suppress(Stopped):
            run(self.config, self.folder)

    def trial(self, damage: Damage) -> tuple[str, str]:
        """Damage the folder, repeat the command; return the verdict and why it is no better."""
        self._damage(damage)
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        self.key = ""
        try:
            verdict, why = self._verdict(damage)
        except Hang:
            return "HANG", _words(damage)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self.key:
            self.seen.setdefault(self.key, verdict)
        return verdict, f"{_words(damage)}: {why}"

    def _damage(self, damage: Damage) -> None:
        self._restore()
        put(self.folder / damage.file, damage.content)
        self.stamps.pop(damage.file, None)

    def _restore(self) -> None:
        """Bring the folder back to what it was; usually one file only was changed."""
        now = stamps(self.folder)
        if any(now.get(name) != stamp for name, stamp in self.stamps.items()) or not self.stamps:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.stamps = {}
        for name in now.keys() - self.template.keys() if self.stamps else ():
            (self.folder / name).unlink()
        for name in self.template.keys() - self.stamps.keys():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)
            path.write_bytes(self.template[name])
        self.stamps = stamps(self.folder)

    def _verdict(self, damage: Damage) -> tuple[str, str]:
        from lozo_bench.errors import UserError

        try:
            return (self._replay if self.case.command == "replay" else self._train)()
        except Seen as seen:
            return seen.verdict, "as one before"
        except UserError as error:
            now = stamps(self.folder)
            if any(now.get(name) != stamp for name, stamp in self.stamps.items()):
                return "LOST", str(error)
            return ("told" if "\n" not in str(error) else "TRACEBACK"), str(error)
        except Exception as error:  # whatever it is, it would be a traceback
            return "TRACEBACK", repr(error)

    def _train(self) -> tuple[str, str]:
        from lozo_bench.runs import provenance
        from lozo_bench.training import build_run, run, session
        from lozo_bench.training.trainer import Trainer

        with (
            mock.patch.object(run, "plan_cell", self._planned),
            mock.patch.object(run, "Trainer", self._trainer(Trainer)),
            mock.patch.object(run, "build_run", self._build_once),
            mock.patch.object(build_run, "load", loaded),
            mock.patch.object(session, "Lock", NoLock),
            mock.patch.object(provenance, "reset_peak_memory", _process),
        ):
            result = run.run(self.config, self.folder)
        assert result is not None
        for key in COMPARED:
            if result[key] != self.undisturbed[key]:
                return "WRONG", f"{key}: {result[key]} instead of {self.undisturbed[key]}"
        if self.key and evaluations(self.folder) != self.rows:
            return "WRONG", "evaluations are missing in metrics.jsonl"
        began_again = not self.case.finished and result["sittings"] < 2
        return ("again" if began_again else "right"), ""

    def _planned(self, *_: object) -> Any:
        return self.cell

    def _replay(self) -> tuple[str, str]:
        from lozo_bench.training import build_run, replay, stored
        from lozo_bench.training.trainer import Trainer

        with (
            mock.patch.object(replay, "Trainer", self._trainer(Trainer)),
            mock.patch.object(replay, "build_run", self._build_once),
            mock.patch.object(build_run, "load", loaded),
            mock.patch.object(replay, "stored_run", self._stored),
        ):
            step = stored.tested_step(self.folder)
            rebuilt = replay.rebuild(self.folder, step)
        if rebuilt.weights != self.undisturbed["weights"]["tested"]:
            return "WRONG", f"{rebuilt.weights} instead of {self.undisturbed['weights']['tested']}"
        return "right", ""

    def _stored(self, folder: Path) -> Any:
        """Return the stored run; a result that was read before is not checked once more."""
        from lozo_bench.training.stored import stored_run

        path = folder / "result.json"
        data = path.read_bytes() if path.is_file() else b""
        if data != self.template["result.json"]:
            return stored_run(folder)
        if data not in self.stored:
            self.stored[data] = stored_run(folder)
        return self.stored[data]

    def _build_once(self, *arguments: Any) -> Any:
        """Return the built run: a new one if steps were made with the last one."""
        from lozo_bench.training.build_run import build_run

        if self.built is None:
            self.built = build_run(*arguments)
        return self.built

    def _trainer(self, original: Any) -> Callable[..., Any]:
        """Return what makes the trainer, unless it would make the rest of a run once more."""

        def make(parts: Any, *, history: Any, **others: Any) -> Any:
            key = history_key(history, self.folder)
            if key in self.seen:
                raise Seen(self.seen[key])
            self.key = key
            self.built = None
            return original(parts, history=history, **others)

        return make


def history_key(history: Any, folder: Path) -> str:
    """Return a hash of everything from which a run continues."""
    log, state = history.log, history.newest
    digest = hashlib.blake2b()
    for part in (
        history.known,
        {**log.header, "wandb_id": ""},
        [[answer.numpy().tobytes() for answer in step] for step in log.steps],
        sorted(log.lost),
        log.evaluations,
        log.spent,
        None if state is None else (state.step, state.metadata, state.history),
    ):
        digest.update(repr(part).encode())
    for name, x in sorted(state.tensors.items()) if state else ():
        digest.update(name.encode() + bytes(x.contiguous().flatten().view(-1).numpy().tobytes()))
    for name in ("metrics.jsonl", "events.jsonl"):
        path = folder / name
        digest.update(path.read_bytes() if path.is_file() else b"-")
    return digest.hexdigest()


def loaded(config: Any, *rest: Any) -> Any:
    """Return the loaded model, a new copy of it each time."""
    import copy

    return copy.deepcopy(_load(config.path, config.device, *rest))


@cache
def _load(path: str, device: str, *rest: Any) -> Any:
    from lozo_bench.config.schema import ModelConfig
    from lozo_bench.models.load import load

    return load(ModelConfig(name="local", path=path, device=device), *rest)


@contextlib.contextmanager
def opened_files(folder: Path) -> Iterator[set[str]]:
    """Collect the files below a folder that are opened in this context, by relative name."""
    found: set[str] = set()
    _opened.append((str(folder) + "/", found))
    if not _hooked:
        sys.addaudithook(_on_event)  # it cannot be removed
        _hooked.append(True)
    yield found
    _opened.pop()


_opened: list[tuple[str, set[str]]] = []
_hooked: list[bool] = []


def _on_event(event: str, arguments: Any) -> None:
    if event == "open" and _opened:
        prefix, found = _opened[-1]
        path = os.fspath(arguments[0]) if isinstance(arguments[0], str | Path) else ""
        if path.startswith(prefix):
            found.add(path.removeprefix(prefix))


def stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return inode, size and modification time of everything in a folder but its lock."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)  # noqa: PTH118  # ten times as fast as Path
            if not name.startswith(("lock", ".lock")) and name != "failed.json":
                at = os.lstat(path)
                found[path[len(str(folder)) + 1 :]] = (at.st_ino, at.st_size, at.st_mtime_ns)
    return found


class NoLock(contextlib.nullcontext[Any]):
    """A lock that is no file: locks are not what is tried here, and would take most of the time."""

    def __enter__(self) -> NoLock:
        return self

    def check(self) -> None:
        """Do nothing."""


def _process(*_: object) -> str:
    return "process"


def composed(overrides: Sequence[str]) -> Any:
    """Return the config of a command."""
    import hydra

    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return hydra.compose("config", list(overrides))


def make_hydra_files(folder: Path, config: Any) -> None:
    """Write the files that Hydra leaves in a run's folder."""
    from omegaconf import OmegaConf

    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    hydra = {
        "overrides": {"task": list(SHORT), "hydra": ["hydra.mode=RUN"]},
        "runtime": {
            "cwd": str(folder),
            "choices": {"tuned": "none", "optimizer": "lozo"},
            "config_sources": [{"path": str(ROOT / "conf"), "schema": "file", "provider": "main"}],
        },
        "job": {"config_name": "config"},
        "mode": "RUN",
    }
    OmegaConf.save({"hydra": hydra}, folder / ".hydra" / "hydra.yaml")
    (folder / "train.log").write_text("[2026-01-01][lozo_bench][INFO] - a line\n")


def files_in(folder: Path) -> Files:
    """Return every regular file below a folder, by its name relative to the folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


_NOT_RESTORED = {"backward_passes", "queries", "tokens", "elapsed_s"}


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of evaluations in metrics.jsonl.

    Seconds differ from attempt to attempt, and a restored row has forward passes as its only cost.
    """
    path = folder / "metrics.jsonl"
    found = [json.loads(line) for line in path.read_bytes().splitlines()] if path.is_file() else []
    rows = [row for row in found if any(key.endswith("_loss") for key in row)]
    return [{key: value for key, value in row.items() if key not in _NOT_RESTORED} for row in rows]


def put(path: Path, content: bytes | str | None) -> None:
    """Write damaged content to a file, remove it, or put something else in its place."""
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    elif content == "link to nothing":
        path.symlink_to("nowhere")


def _words(damage: Damage) -> str:
    if isinstance(damage.content, bytes):
        return f"{damage.file}: {damage.content[:4000]!r}"
    return f"{damage.file}: {damage.content or 'removed'}"


def report(counts: Counter[tuple[str, str, str]], examples: dict[str, str]) -> None:
    """Print a table with a row for each file of each case, and the examples."""
    verdicts = ("unread", "right", "again", "told", *BAD)
    table = Table(title="damaged folders", title_justify="left")
    for column in ("case", "file", "damages", *verdicts):
        table.add_column(column, justify="left" if column in ("case", "file") else "right")
    for case, file in dict.fromkeys((case, file) for case, file, _ in sorted(counts)):
        of = [counts[case, file, verdict] for verdict in verdicts]
        table.add_row(case, file, str(sum(of)), *(str(n) if n else "" for n in of))
    Console(width=160).print(table)
    for name, why in examples.items():
        print(f"{name}: {why[:600]}")
    by_verdict = Counter[str]()
    for (_, _, verdict), n in counts.items():
        by_verdict[verdict] += n
    print(", ".join(f"{by_verdict[verdict]} {verdict}" for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
