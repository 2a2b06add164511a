"""A process that uses the stand-in hub as a user's process uses the hub, with the real clients.

huggingface_hub and datasets read their environment once, when they are imported. So this is a fresh
Python, which imports everything with HF_ENDPOINT set and then forks once for each thing to do:
`HubUser.command` runs ``lozo-train``, `HubUser.call` a function of this file.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ENDED_IN_DEFECT = 70  # the exit code if a function raised an exception


@dataclass(frozen=True)
class Ended:
    """How it ended: exit code, what was printed, and the hosts that were asked for beside ours."""

    code: int
    out: str
    err: str
    hosts: list[str]


class HubUser:
    """A user of the hub at an address; a context manager."""

    def __init__(self, address: str, folder: Path) -> None:
        """Start it; its cache and its runs are below ``folder``."""
        self.folder, self.cache = folder, folder / "cache"
        secrets = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        environment = {key: value for key, value in os.environ.items() if key not in secrets} | {
            "HF_ENDPOINT": address, "HF_HOME": str(self.cache), "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # which asks another host
            "HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1", "OMP_NUM_THREADS": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip

    def __enter__(self) -> HubUser:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(20)

    def command(
        self, *arguments: str, token: str | None = None, offline: bool = False, cold: bool = False
    ) -> Ended:
        """Run ``lozo-train``.

        Args:
            arguments: The command line.
            token: The value of HF_TOKEN.
            offline: Whether HF_HUB_OFFLINE=1 is set.
            cold: Whether the cache is empty, and forgotten afterwards.
        """
        return self._do(["train", *arguments], token, offline, cold)

    def call(
        self,
        function: str,
        *arguments: Any,
        token: str | None = None,
        offline: bool = False,
        cold: bool = False,
    ) -> Any:
        """Return what a function of this file, called by its name, returns."""
        ended = self._do(["call", function, *map(json.dumps, arguments)], token, offline, cold)
        assert ended.code == 0, ended.err
        return json.loads(ended.out.splitlines()[-1])

    def _do(self, what: list[str], token: str | None, offline: bool, cold: bool) -> Ended:
        asked = {"what": what, "token": token, "offline": offline}
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            asked["folder"] = folder
            asked["cache"] = f"{folder}/cold" if cold else str(self.cache)
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            printed = [(Path(folder) / name).read_text() for name in ("out", "err", "hosts")]
        return Ended(code, printed[0], printed[1], printed[2].split())


def encoded_tasks(commands: dict[str, list[str]]) -> dict[str, Any]:
    """Read, draw and encode the rows of each command's task, as a run does before its first step.

    Returns:
        For each command the labels of each set and the text of the first train row, or the error.
    """
    from lozo_bench.errors import UserError
    from lozo_bench.parallel.team import Team
    from lozo_bench.training.build_run import build_run
    from lozo_bench.training.plan import plan_run, typed

    found: dict[str, Any] = {}
    for name, overrides in commands.items():
        try:
            config, _ = typed(_composed(overrides))
            built = build_run(config, plan_run(config), Team())
        except UserError as error:
            found[name] = {"error": str(error)}
            continue
        data, tokenizer = built.parts.data, built.loaded.tokenizer
        found[name] = {
            split: [row.label for row in getattr(data, split)] for split in ("train", "dev", "test")
        }
        found[name]["golds"] = [list(row.golds or row.answers) for row in data.test]
        found[name]["text"] = tokenizer.decode(list(data.train[0].rows[0]))
    return found


def _composed(overrides: list[str]) -> Any:
    """Return the config of a command; the part that is not the task's is composed once."""
    from cells import CONF
    from omegaconf import OmegaConf

    from lozo_bench.config.schema import TaskConfig

    task = [text for text in overrides if text.lstrip("+").startswith("task")]
    config = copy.deepcopy(_base(tuple(text for text in overrides if text not in task)))
    OmegaConf.set_struct(config, False)
    for text in task:
        key, _, value = text.lstrip("+").partition("=")
        if key == "task":
            node = OmegaConf.load(CONF / "task" / f"{value}.yaml")
            config.task = OmegaConf.merge(OmegaConf.structured(TaskConfig), node)
        else:
            OmegaConf.update(config, key, yaml.safe_load(value), force_add=True)
    return config


@functools.cache
def _base(overrides: tuple[str, ...]) -> Any:
    from cells import composed

    return composed(*overrides, "tracking=files", "model.device=cpu")


def loaded_model(path: str) -> str:
    """Load a model; return how many weights it has, or the error."""
    from lozo_bench.config.schema import ModelConfig
    from lozo_bench.errors import UserError
    from lozo_bench.models.load import load

    try:
        loaded = load(ModelConfig(name="tiny", path=path, device="cpu"))
    except UserError as error:
        return str(error)
    return f"{sum(weight.numel() for weight in loaded.model.parameters())} weights"


def loaded_together(path: str, processes: int) -> list[str]:
    """Load a model in several processes at the same time."""
    children = []
    for _ in range(processes):
        reader, writer = os.pipe()
        if not os.fork():
            with os.fdopen(writer, "w") as file:
                file.write(loaded_model(path))
            os._exit(0)
        os.close(writer)
        children.append(reader)
    return [Path(f"/dev/fd/{reader}").read_text() for reader in children]


def _serve() -> None:
    """Import everything, then fork for each line of standard input and answer with exit codes."""
    from lozo_bench.launch.child import PRELOAD

    for module in (*PRELOAD, "datasets.load", "datasets.builder", "lozo_bench.train"):
        importlib.import_module(module)
    _base(("model=tiny_opt",))  # which most functions need
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if not pid:
            _child(asked)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    os._exit(0)  # taking all that was imported down again takes seconds


def _child(asked: dict[str, Any]) -> None:
    folder = Path(asked["folder"])
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    (folder / "hosts").touch()
    os.chdir(folder)
    if asked["token"]:
        os.environ["HF_TOKEN"] = asked["token"]
    _use_cache(Path(asked["cache"]))
    if asked["offline"]:
        _go_offline()
    _stay_here(folder / "hosts")
    code = ENDED_IN_DEFECT
    try:
        code = _run(*asked["what"])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run(what: str, *arguments: str) -> int:
    if what == "call":
        function, *given = arguments
        print(json.dumps(globals()[function](*map(json.loads, given))))
        return 0
    from lozo_bench import train

    sys.argv = ["lozo-train", *arguments]
    train.main()
    return 0


def _use_cache(folder: Path) -> None:
    """Set what the libraries made of HF_HOME when they were imported."""
    import datasets.config
    import huggingface_hub.constants

    os.environ["HF_HOME"] = str(folder)
    huggingface_hub.constants.HF_HOME = str(folder)
    huggingface_hub.constants.HF_HUB_CACHE = str(folder / "hub")
    datasets.config.HF_DATASETS_CACHE = folder / "datasets"
    datasets.config.HF_MODULES_CACHE = folder / "modules"


def _go_offline() -> None:
    import datasets.config
    import huggingface_hub.constants

    os.environ["HF_HUB_OFFLINE"] = "1"
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    datasets.config.HF_HUB_OFFLINE = datasets.config.HF_DATASETS_OFFLINE = True


def _stay_here(asked: Path) -> None:
    """Refuse every host but this machine's own address, and write down its name."""
    look_up = socket.getaddrinfo

    def only_here(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name != "127.0.0.1":
            with asked.open("a") as file:
                file.write(f"{name}\n")
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *arguments, **options)

    socket.getaddrinfo = only_here


if __name__ == "__main__":
    _serve()
