"""The command as a user types it: what it prints, what it exits with, what it refuses.

Every bad config is one clear line on standard error, exit code 2, before a model is loaded.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lozo_bench
from lozo_bench.config.completion import allowed_words
from lozo_bench.config.help import described
from lozo_bench.config.paths import CONF

BAD_CONFIGS = {
    "unknown key": (["stepz=3"], "stepz: no such key (did you mean 'steps'?)"),
    "unknown key in a group": (["model.pth=x"], "model.pth: no such key (did you mean 'path'?)"),
    "key without its group": (["nu=5"], "nu: no such key (did you mean optimizer.nu?)"),
    "key without its node": (
        ["task=rte", "task.num_test=5"],
        "task.num_test: no such key (did you mean task.source.num_test?)",
    ),
    "no value for a choice": (
        ["model=opt_13b", "task=wsc", "optimizer=adamw", "task.split=mine"],
        "steps: no value is given for 'mine'; there are values for sane, published",
    ),
    "seed without an option": (
        ["seed=s3"],
        "s0, s1, s100, s13, s2, s21, s42, s43, s87; what to do: seed.value=3",
    ),
    "key of one task beside a list of tasks": (
        ["task=[reviews,topics]", "task.source.train=10"],
        "task.source.train: several tasks have no such key; what to do: give it to each task: "
        "task.tasks.reviews.source.train=...",
    ),
    "unknown key, appended": (["+optimizer.foo=1"], "optimizer.foo: no such key"),
    "unknown key, appended to a typed group": (["+model.foo=1"], "model.foo: no such key"),
    "unknown option": (
        ["optimizer=lozoo"],
        "optimizer=lozoo: no such option (did you mean 'lozo'?); there are: adafactor, adamw, ",
    ),
    "mixed precision beside versions of the weights": (
        ["model.autocast=bf16"],
        "model.autocast: given 'bf16'; allowed: null with this optimizer, or engine.mode=in_place",
    ),
    "unknown group": (["optimzer=lozo"], "optimzer: no such key (did you mean 'optimizer'?)"),
    "wrong type": (["steps=abc"], "steps: given 'abc'; allowed: a whole number"),
    "wrong type of a group's value": (
        ["rank.value=2.5"],
        "rank.value: given '2.5'; allowed: a whole number",
    ),
    "wrong type of an optimizer's value": (
        ["optimizer.lr=abc"],
        "optimizer.lr: given 'abc'; allowed: a number",
    ),
    "not one of the choices": (
        ["model.dtype=float17"],
        "model.dtype: given 'float17'; allowed: one of fp32, bf16, fp16",
    ),
    "not one of an optimizer's choices": (
        ["optimizer.scale=papr"],
        "optimizer.scale: given 'papr'; allowed: one of paper, reference",
    ),
    "rank 0": (["rank.value=0"], "rank.value: given 0; allowed: a whole number >= 1"),
    "eps not positive": (["optimizer.eps=0"], "optimizer.eps: given 0; allowed: a number > 0"),
    "nu below 1": (["optimizer.nu=0"], "optimizer.nu: given 0; allowed: a whole number >= 1"),
    "a number as a group's option": (
        ["rank=4"],
        "rank=4: the options of a group are names, not numbers; rank.value=4 sets any number",
    ),
    "seed as a number": (
        ["seed=7"],
        "seed=7: the options of a group are names, not numbers; seed.value=7 sets any number",
    ),
    "a causal-only task on a masked model": (
        ["model=tiny_roberta", "task=sst2"],
        "task=sst2: a task for causal models only, and model=tiny_roberta is masked",
    ),
    "a masked-only task on a causal model": (
        ["task=sst2_kshot"],
        "task=sst2_kshot: a task for masked models only, and model=tiny_opt is causal",
    ),
    "a model path that was not given": (["model=local"], "model.path: missing; give model.path="),
    "a model path that leads nowhere": (
        ["model=local", "model.path=/no/such/folder"],
        "model.path: given '/no/such/folder'",
    ),
    "a data folder that is not there": (
        ["model=tiny_roberta", "task=sst2_kshot", "task.data_dir=/no/such/data"],
        "/no/such/data",
    ),
    "a class that is not ours": (
        ["optimizer._target_=os.system"],
        "optimizer._target_: given 'os.system'; allowed: a class of this package",
    ),
    "an interpolation to nowhere": (["optimizer.rank=${nope}"], "nope"),
    "an override that cannot be read": (["optimizer.lr=[1"], "cannot read the override"),
    "shots without their name": (
        ["optimizer=zero_shot", "evaluation.shots=2"],
        "evaluation.shots: given 2; allowed with optimizer=zero_shot: 0; what to do: optimizer=icl",
    ),
    "a number blamed on the right argument": (
        ["steps=100", "rank=3"],
        "rank=3: the options of a group",
    ),
    "a group set to nothing": (["steps=2", "model=null"], "model=null: no such option"),
    "more options than labels": (
        ["task=sst2", "task.options=[' a',' b',' c']"],
        "task.options: given [' a', ' b', ' c']; allowed: one for each of task.source.labels",
    ),
    "a learning rate that is no number": (
        ["optimizer.lr=inf"],
        "optimizer.lr: given inf; allowed: a number >= 0",
    ),
    "a class that cannot be made": (
        ["optimizer._target_=lozo_bench.optimizers.base.Optimizer"],
        "allowed: a class of this package that can be instantiated",
    ),
    "a folder that cannot be made": (["hydra.run.dir=/proc/none"], "/proc/none: "),
    "an option that the YAML leaves out": (
        ["optimizer.betta=1"],
        "put + before a key that the YAML file does not list",
    ),
    "a key of swept options": (
        ["method=bbt_v2,bbt", "optimizer.budget=80", "-m"],
        "the default optimizer has no such key; if the options of method=bbt_v2,bbt have it, what "
        "to do: ++optimizer.budget=80",
    ),
    "a learning rate below 0 in a sweep": (
        ["optimizer.lr=-1,1e-3", "-m"],
        "optimizer.lr: given -1; allowed: a number >= 0 (in the cell optimizer.lr=-1; no cell was",
    ),
    "a sweep and its config at once": (["-m", "--cfg", "job"], "omit -m to see the config"),
    "a list without -m": (
        ["seed=s0,s1"],
        "seed=s0,s1: several options are a sweep; what to do: add -m to run each of them",
    ),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_bad_config_is_a_one_line_error_with_exit_code_2(command, name, monkeypatch):
    arguments, said = BAD_CONFIGS[name]
    monkeypatch.setattr(
        "lozo_bench.training.build_run.load", lambda config: pytest.fail("model loaded")
    )
    code, out, err = command("tracking=files", *arguments)
    assert code == 2, (out, err)
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"lr: [1\n", "a YAML file of the config cannot be read"),
        (b"lr: 1\nlr: 2\n", "duplicate key lr"),
        (b"lr: caf\xe9\n", "a YAML file of the config cannot be read"),
    ],
)
def test_an_unreadable_yaml_file_is_a_one_line_error(command, tmp_path, text, said):
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "odd.yaml").write_bytes(text)
    code, _, err = command("--config-dir", str(tmp_path / "mine"), "optimizer=odd")
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_an_interrupted_run_says_how_to_continue(command, monkeypatch):
    def interrupted(*told):
        raise KeyboardInterrupt

    monkeypatch.setattr("lozo_bench.training.build_run.load", interrupted)
    code, _, err = command("tracking=files")
    assert code == 130
    assert err.splitlines()[-1] == "interrupted; the same command runs what is not finished"


def test_the_resolved_config_is_printed_without_a_run(command):
    code, out, _ = command("--cfg", "job", "--resolve", "rank.value=3", "seed=s42")
    assert code == 0
    assert "rank: 3" in out
    assert "value: 42" in out
    assert not Path("outputs").exists()


def test_help_fits_on_a_screen_and_shows_groups_and_examples(command):
    code, out, _ = command("--help")
    assert code == 0
    assert len(out.splitlines()) <= 45
    assert max(map(len, out.splitlines())) <= 100
    assert re.search(r"^  optimizer +\d+  a training method", out, re.MULTILINE)
    assert "lozo-train -m optimizer=lozo,adamw seed=s0,s1,s2" in out
    for launcher in ("local", "serial", "slurm_nodes"):
        assert launcher in out


def test_help_about_a_group_says_what_each_option_is(command, tmp_path):
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "own.yaml").write_text(
        "# lozo-train task=own: rows of my own. More.\n# Even more.\nname: own\n"
    )
    code, out, _ = command("--help", "task", "--config-dir", "mine")
    assert code == 0
    assert re.search(r"^  own +rows of my own$", out, re.MULTILINE)
    assert "  reviews " in out
    assert re.search(r"^  mezo +Full-rank", command("--help", "optimizer")[1], re.MULTILINE)
    assert "max_rank: 32 # bf16, fp16: columns" in command("--help", "engine")[1]
    assert command("--help", "tracking=files")[1].endswith("wandb: false\n")
    code, out, err = command("--help", "optimiser")
    assert (code, out) == (2, "")
    assert err.startswith("--help optimiser: no such group (did you mean 'optimizer'?)")


@pytest.mark.parametrize("group", [path.name for path in CONF.iterdir() if path.is_dir()])
def test_help_has_a_description_of_every_option(group):
    """Not its command, and not what stands behind the command in parentheses."""
    for path in (CONF / group).glob("*.yaml"):
        about = described(path)
        assert about, path
        assert not about.startswith(("lozo-train", "(", "then ")), (path, about)
        assert len(about.split()) > 1 or group == "model", (path, about)


def test_the_version_is_that_of_this_package(command):
    assert command("--version")[:2] == (0, f"lozo-bench {lozo_bench.__version__}\n")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lozo-train schedule=", ["schedule=constant", "schedule=linear"]),
        ("lozo-train -m steps=3 model.dtype=b", ["model.dtype=bf16"]),
        ("lozo-train tracking.wandb=t", ["tracking.wandb=true"]),
        ("lozo-train steps=", []),
        ("lozo-train sched", []),
    ],
)
def test_tab_completion_offers_the_words_that_a_key_allows(line, offered):
    assert allowed_words(line) == offered


@pytest.mark.parametrize("start", [["-m", "lozo_bench.train"], None])
def test_both_commands_find_conf_from_any_folder(start, tmp_path):
    script = [str(Path(sys.executable).parent / "lozo-train")]
    program = script if start is None else [sys.executable, *start]
    done = subprocess.run(
        [*program, "--cfg", "job", "-p", "optimizer"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert "lozo_bench.optimizers.lozo.Lozo" in done.stdout


def test_tab_completion_offers_options(tmp_path):
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lozo-train"), "-sc", "query=bash"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
        env={"COMP_LINE": "lozo-train optimizer=", "COMP_POINT": "21", "PATH": "/usr/bin:/bin"},
    )
    assert "optimizer=lozo" in done.stdout
