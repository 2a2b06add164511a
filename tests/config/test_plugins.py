"""A config names classes of this package only, unless the user allows another package."""

from __future__ import annotations

import json

import pytest

from lozo_bench.config.build import build, require
from lozo_bench.config.plugins import ENVIRONMENT, allow, allowed, check_target_name
from lozo_bench.errors import UserError


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, "")


def test_only_this_package_is_allowed_at_first():
    assert allowed() == ["lozo_bench"]
    check_target_name("lozo_bench.tuning.full.Full", "tuning")


@pytest.mark.parametrize("target", ["os.system", "lozo_benchmark.X", "mine.rules.Sign"])
def test_a_class_of_another_package_is_refused_with_what_to_do(target):
    package = target.partition(".")[0]
    with pytest.raises(UserError, match=rf"^tuning\._target_: .*'plugins=\[{package}\]'$"):
        check_target_name(target, "tuning")


def test_a_package_is_allowed_by_the_environment_or_the_config(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, "mine, theirs")
    allow(["others", "mine"])
    assert allowed() == ["lozo_bench", "mine", "theirs", "others"]
    check_target_name("others.X", "tuning")


@pytest.mark.parametrize("name", ["my-package", "mine.rules", ""])
def test_the_name_of_a_package_must_be_one(name):
    with pytest.raises(UserError, match=r"^plugins: given .* the name of a package"):
        allow([name])


def test_a_package_that_is_not_installed_is_said_in_one_line():
    allow(["mine"])
    with pytest.raises(UserError, match=r"no mine\.rules\.X: .*set PYTHONPATH to the folder"):
        build({"_target_": "mine.rules.X"}, "tuning")


OPTIMIZER = """
from lozo_bench.optimizers.lozo import Lozo

class Halved(Lozo):
    def __init__(self, engine, draws, *, lr: float, eps: float, rank: int, nu: int) -> None:
        super().__init__(engine, draws, lr=lr / 2, eps=eps, rank=rank, nu=nu)
"""
YAML = """# lozo-train optimizer=halved
_target_: my_methods.halved.Halved
lr: 1.0e-3
eps: 1.0e-3
rank: ${rank.value}
nu: 50
"""
SOURCE = """
from lozo_bench.tasks.base import Example, Splits

class Twelve:
    def splits(self) -> Splits:
        rows = [Example({"text": f"the film was {w} ."}, i % 2)
                for i, w in enumerate(["dull", "lovely"] * 6)]
        return Splits(rows[:6], rows[6:8], rows[8:])
"""
TASK = """# lozo-train task=twelve
name: twelve
source:
  _target_: my_methods.twelve.Twelve
prompt: "{text} It was"
options: [" terrible", " great"]
"""


@pytest.fixture
def my_methods(tmp_path, monkeypatch):
    for name, text in {
        "code/my_methods/__init__.py": "",
        "code/my_methods/halved.py": OPTIMIZER,
        "code/my_methods/twelve.py": SOURCE,
        "conf/optimizer/halved.yaml": YAML,
        "conf/task/twelve.yaml": TASK,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))


def test_an_optimizer_and_a_task_outside_the_package_run(my_methods, command, tmp_path):
    words = ["--config-dir=conf", "tracking=files", "steps=2", "optimizer=halved", "task=twelve"]
    code, _, err = command(*words)
    assert code == 2
    assert "'plugins=[my_methods]'" in err
    code, _, err = command(*words, "plugins=[my_methods]")
    assert code == 0, err
    (path,) = tmp_path.glob("outputs/default/twelve/tiny_opt/halved-*/result.json")
    assert json.loads(path.read_text())["config"]["plugins"] == ["my_methods"]
    code, _, err = command(*words, "plugins=[my_methods]", "+optimizer.lrr=1")
    assert code == 2
    assert "optimizer.lrr: no such key (did you mean 'lr'?)" in err


@pytest.mark.parametrize("group", ["optimizer", "task.source"])
def test_a_class_of_another_kind_is_refused(group):
    built = build({"_target_": "lozo_bench.tuning.full.Full"}, group)
    with pytest.raises(UserError, match=rf"^{group}\._target_: .* a class with needs and step$"):
        require(built, group, "needs", "step")
