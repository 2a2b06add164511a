"""``lozo-train --help`` on one screen, and ``--help GROUP``: the options with what they are.

Everything is read from the YAML files and from the table of groups in ``conf/README.md``.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from lozo_bench.config.paths import CONF, PACKAGE
from lozo_bench.errors import UserError, did_you_mean

_WIDTH = 100
_COMMAND = re.compile(
    r"(?:Used by: )?lozo-train(?: -m)?(?: \S+=(?:\[.*?\]|http:\S+|[^\s:]+))*:?\s*"
)
_USAGE = """lozo-train fine-tunes a language model without full backpropagation.

  lozo-train                                          the embedded model, in under a minute
  lozo-train optimizer=mezo seed=s1                   choose by group
  lozo-train optimizer.lr=1e-4 steps=2000             set a value
  lozo-train -m optimizer=lozo,adamw seed=s0,s1,s2    sweep: one run for each combination
  lozo-train model=local model.path=DIR task=sst2_kshot task.data_dir=DIR

Groups: GROUP=OPTION, and the number of options. --help GROUP explains the options of a group,
--help GROUP=OPTION shows one.
"""
_MORE = """
Values: KEY=VALUE, such as steps, batch_size, eval_every, log_every, schedule, optimizer.lr.
  --help {nodes}    what the keys of each node are
  --cfg job --resolve       print every key and value of a run, and stop

  -m, --multirun            run a sweep; the same command again runs what is missing
  --config-dir DIR          add YAML files of your own, in folders of the same names
  --hydra-help, --info      Hydra's own options, launchers and plugins
  --version                 the version of this package
  eval "$(lozo-train -sc install=bash)"   tab completion

lozo-status shows the runs, lozo-tables their tables, lozo-plot their curves, lozo-report all of it
in one HTML file; lozo-figures draws the papers' figures, lozo-predict prints a run's answers,
lozo-export writes its model."""


def help_text(topic: str, own: Path | None = None) -> str:
    """Return the help about a group, an option (``GROUP=OPTION``) or a node; all groups for "".

    Args:
        topic: what the help is about.
        own: a further folder with options of the same groups.

    Raises:
        UserError: there is no such group, option or node.
    """
    if not topic:
        return _overview(own)
    group, equals, option = topic.partition("=")
    options = _options(group, own)
    if options and equals:
        if option not in options:
            hint = did_you_mean(option, options)
            raise UserError(
                f"--help {topic}: no such option{hint}; there are: {', '.join(options)}"
            )
        return options[option].read_text(encoding="utf-8").rstrip()
    if options:
        title = f"{group}: {_groups().get(group, 'chosen by others')}"
        return "\n".join(
            [title, *_listed({name: described(path) for name, path in options.items()})]
        )
    nodes = _nodes()
    if topic not in nodes:
        known = [*_groups(), *nodes]
        raise UserError(
            f"--help {topic}: no such group{did_you_mean(topic, known)}; there are: "
            f"{', '.join(known)}"
        )
    return nodes[topic]


def described(path: Path) -> str:
    """Return what an option is, in one sentence.

    It stands in the file's first comment, after a command, or else is the first line of the
    class that the file names. Otherwise it is the path of a model, or the command.
    """
    text = path.read_text(encoding="utf-8")
    comments = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            comments.append(line.removeprefix("#").strip())
    first, *others = comments or [""]
    found = _COMMAND.match(first)
    after = first[found.end() :].strip() if found else first
    if after and not after.startswith("("):
        # Further commands stand below the first one; what is said ends before them.
        said = takewhile(lambda line: not line.startswith("lozo-"), [after, *others])
        return _sentence(" ".join(said))
    target = re.search(r"^_target_: (\S+)", text, re.MULTILINE)
    model = re.search(r"^path: ([^?\s]+)", text, re.MULTILINE)
    for answer in (
        _docstring(target[1]) if target else "",
        _sentence(" ".join(line for line in others if not line.startswith("lozo-"))),
        after.strip("()"),
        model[1] if model else "",
    ):
        if answer:
            return answer
    return first


def _overview(own: Path | None) -> str:
    groups = _groups()
    width = max(map(len, groups))
    lines = []
    for group, about in groups.items():
        names = list(_options(group, own))
        listed = f"where a sweep runs: {', '.join(names)}" if group == "hydra/launcher" else about
        room = _WIDTH - width - 8
        short = textwrap.shorten(listed, room, placeholder=" ...")
        lines.append(f"  {group:<{width}} {len(names):3d}  {short}")
    return _USAGE + "\n".join(lines) + "\n" + _MORE.format(nodes="|".join(_nodes()))


def _groups() -> dict[str, str]:
    """Return what each group chooses, from the table in conf/README.md."""
    table = (CONF / "README.md").read_text(encoding="utf-8").split("\n\n| ")[1].split("\n\n")[0]
    rows = re.findall(r"^\| ?(`[^|]*`) \| (.*?) \|$", f"| {table}", re.MULTILINE)
    return {
        name: re.split(r"[:;] ", about)[0].replace("`", "")
        for names, about in rows
        for name in re.findall(r"`([^`]+)`", names)
    }


def _options(group: str, own: Path | None) -> dict[str, Path]:
    """Return the files of a group's options by name, those of the user's own folder too."""
    folders = [folder / group for folder in (CONF, own) if folder is not None and group]
    found = {path.stem: path for folder in folders for path in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def _nodes() -> Mapping[str, str]:
    """Return the lines of config.yaml for each node with keys of its own, comments included."""
    text = (CONF / "config.yaml").read_text(encoding="utf-8")
    found = re.findall(r"^(\w+):[^\n]*\n(?:  .*\n)+", text, re.MULTILINE)
    parts = {part.partition(":")[0]: part.rstrip() for part in re.split(r"\n(?=\w)", text)}
    return {name: parts[name] for name in found if name not in ("defaults", "hydra")}


def _listed(options: Mapping[str, str]) -> list[str]:
    width = max(map(len, options))
    return [
        line
        for name, about in options.items()
        for line in textwrap.wrap(
            f"  {name:<{width}}  {about}", _WIDTH, subsequent_indent=" " * (width + 4)
        )
    ]


def _docstring(target: str) -> str:
    """Return the first sentence of what a class of this package says it is."""
    module, _, name = target.rpartition(".")
    path = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    if not path.is_file():
        return ""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _sentence((ast.get_docstring(node) or "").split("\n\n")[0])
    return ""


def _sentence(text: str) -> str:
    return re.split(r"\.(?:\s|$)|; see ", " ".join(text.split()), maxsplit=1)[0].replace("``", "")


def topic_of(arguments: Sequence[str]) -> str | None:
    """Return what ``--help`` asks for: "" without a word after it; None if it is not there."""
    for number, argument in enumerate(arguments):
        if argument in ("--help", "-h"):
            rest = [word for word in arguments[number + 1 :] if not word.startswith("-")]
            return rest[0] if rest else ""
    return None


def own_folder(arguments: Sequence[str]) -> Path | None:
    """Return the folder that ``--config-dir`` or ``-cd`` names, if there is one."""
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            return Path(value if equals else "".join(arguments[number + 1 : number + 2]))
    return None
