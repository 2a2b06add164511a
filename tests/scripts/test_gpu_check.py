"""gpu_check.py: what it needs, its output, and how it goes on after a failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import gpu_check  # noqa: E402

# Libraries that other parts of the project import and that the script must not need.
ABSENT = (
    *("hydra", "omegaconf", "submitit", "datasets", "wandb", "rich", "matplotlib", "accelerate"),
    *("cma", "peft", "scipy", "sklearn"),
)
BARE = """import sys, runpy
sys.modules.update(dict.fromkeys({absent!r}))
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(monkeypatch, *arguments):
    """Run the script on tiny sizes and return its exit code."""
    # The budget counts from now, not from when this module was imported.
    argv = ["gpu_check.py", "--device", "cpu", "--tiny", f"--began={time.time()}"]
    argv += map(str, arguments)
    monkeypatch.setattr(sys, "argv", argv)
    return gpu_check.main()


def printed(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_without_the_absent_libraries_the_checks_are_described_and_run(tmp_path):
    """One process imports everything that any check needs and trains a model."""
    argv = [str(SCRIPTS / "gpu_check.py"), "--device=cpu", "--tiny", "--only=train,fold_bits"]
    code = BARE.format(absent=ABSENT, argv=argv)
    command, environment = [sys.executable, "-c", code], {**os.environ, "OUT": str(tmp_path)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=100
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["check"] for line in lines] == ["about", "fold_bits", "train", "done"]
    assert lines[1]["ok"]
    assert lines[2]["ok"]
    assert lines[3]["failed"] == 0
    assert (tmp_path / "gpu_check.jsonl").read_text() == done.stdout


def test_the_draws_have_the_recorded_bits(monkeypatch, capsys):
    assert run(monkeypatch, "--only", "draws") == 0
    about, draws, _ = printed(capsys)
    assert draws["as_golden"]
    assert about["torch"] == torch.__version__
    assert {"card", "driver", "python", "triton", "transformers", "cuda", "commit", "date"} <= set(
        about
    )


def test_the_table_says_what_was_found_and_what_is_expected(monkeypatch, capsys):
    """The readable table goes to standard error, a row for each check."""

    def step_13b_long(machine):
        return {"ms": {"answer_only": 595.9}, "ratio": {"answer_only": 2.32, "fused": 2.4}}

    def step_30b(machine):
        return {"ms": {"fused": 9.0}, "ratio": {}}

    def engines(machine):
        return {"ok": False, "engines_off": 1e-3, "devices_off": 2e-16}

    def kernel(machine):
        raise ValueError("it broke")

    checks = [gpu_check.Check(c, 0) for c in (step_13b_long, engines, kernel, step_30b)]
    monkeypatch.setattr(gpu_check, "CHECKS", [*checks, gpu_check.Check(step_13b_long, 10**6)])
    argv = ["gpu_check.py", "--device", "cpu", f"--began={time.time()}", "--commit=abc"]
    monkeypatch.setattr(sys, "argv", argv)
    assert gpu_check.main() == 1
    title, header, *rows, last = [
        line for line in capsys.readouterr().err.splitlines() if not line.startswith((" ", "Tr"))
    ]
    assert "commit abc" in title
    assert header.endswith("expected")
    rows = [row for row in rows if not row.startswith("ValueError")]
    assert [row.split()[:2] for row in rows] == [
        ["step_13b_long", "slow"],
        ["engines", "FAILED"],
        ["kernel", "FAILED"],
        ["step_30b", "slow"],
        ["step_13b_long", "skipped"],
    ]
    assert rows[0].endswith("at most 1.05")
    assert "2.32 of two forwards" in rows[0]
    assert "ValueError: it broke" in rows[2]
    assert last.startswith("2 failed")


def test_every_check_is_described(monkeypatch, capsys):
    assert run(monkeypatch, "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [check.name for check in gpu_check.CHECKS]


def test_the_next_check_follows_a_failure(monkeypatch, capsys):
    def broken(machine):
        raise ValueError("it broke\nin two lines")

    def fine(machine):
        return {"ok": True}

    monkeypatch.setattr(gpu_check, "CHECKS", [gpu_check.Check(c, 0) for c in (broken, fine)])
    assert run(monkeypatch) == 1
    _, first, second, last = printed(capsys)
    assert first["error"] == "ValueError: it broke"
    assert "test_gpu_check.py" in first["at"]
    assert second["ok"]
    assert last["failed"] == 1


def test_an_error_that_breaks_cuda_starts_the_script_anew(monkeypatch, capsys):
    def broken(machine):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def left(machine):
        raise AssertionError("it belongs to the next process")

    class ReplacedError(Exception):
        """The process would have been replaced."""

    def execv(program, command):
        raise ReplacedError(command)

    monkeypatch.setattr(gpu_check, "CHECKS", [gpu_check.Check(c, 0) for c in (broken, left)])
    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(ReplacedError) as replaced:
        run(monkeypatch)
    command = replaced.value.args[0]
    assert {"--again", "--device=cpu", "--tiny", "--only=left", "--failed=1"} <= set(command)
