"""The package's programs in processes of their own, forked from one that has imported everything.

A fresh Python process needs several seconds of CPU time to import torch and transformers; a fork of
the fork server in `cells` needs none. What a program prints goes to two files, so that no test can
block on a full or silent pipe.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import runpy
import shutil
import sys
import tempfile
import time
from multiprocessing import util
from pathlib import Path

from cells import context

from lozo_bench.launch.signals import restore_handlers


def wait_for(condition, seconds=60, message=str):
    """Return the first true value of ``condition()``; fail with ``message()`` after a deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {message()}"
        time.sleep(0.01)
    return value


class Program:
    """A program that was started, with the interface of `subprocess.Popen` as far as tests use it.

    Leaving the context manager kills the process if it still runs.
    """

    def __init__(self, process, printed):
        self._process, self._printed = process, printed
        self.pid = process.pid
        self.returncode = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.returncode is None:
            self.kill()
            self._process.join(20)
        shutil.rmtree(self._printed)

    def kill(self):
        self._process.kill()

    def stderr_so_far(self):
        return (self._printed / "err").read_text()

    def communicate(self, timeout):
        """Wait for the end; what was printed on standard output and standard error."""
        self._process.join(timeout)
        self.returncode = self._process.exitcode
        out, err = ((self._printed / name).read_text() for name in ("out", "err"))
        assert self.returncode is not None, f"still running after {timeout} s:\n{out}\n{err}"
        return out, err


class Finished:
    """How a program ended, with the attributes of `subprocess.CompletedProcess`."""

    def __init__(self, returncode, stdout, stderr):
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr


def start(folder, *arguments, script=None, environment=None, package=None):
    """Start ``lozo-train``, or a script, in a folder and in a session of its own.

    Args:
        folder: the working directory.
        arguments: the command line.
        script: the path of a script that is run instead of ``lozo-train``.
        environment: variables in addition to this process's.
        package: a folder with another copy of lozo_bench, which is imported instead of ours.
    """
    printed = Path(tempfile.mkdtemp(prefix="printed-"))
    for name in ("out", "err"):
        (printed / name).touch()
    arguments = [str(script or "lozo-train"), *map(str, arguments)]
    everything = {**os.environ, **(environment or {})}
    process = context.Process(
        target=_run, args=(arguments, script, folder, printed, everything, package)
    )
    process.start()
    return Program(process, printed)


def run(folder, *arguments, timeout=100, **options):
    """Run ``lozo-train``, or a script, to its end; see `start`."""
    with start(folder, *arguments, **options) as program:
        out, err = program.communicate(timeout)
    return Finished(program.returncode, out, err)


def _run(arguments, script, folder, printed, environment, package):
    os.setsid()  # a process group of its own, as a shell gives to a command
    restore_handlers()  # SIGINT may be ignored here: the fork server does, and so may the shell
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        with (printed / name).open("a") as file:
            os.dup2(file.fileno(), number)
    sys.argv = arguments
    if package is not None:
        _forget_our_package()
        sys.path.insert(0, str(package))
    _fork_the_fork_server()
    try:
        if script is None:
            from lozo_bench import train

            train.main()
        else:
            sys.path.insert(0, str(Path(script).parent))
            runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.stdout.flush()
        atexit._run_exitfuncs()  # which multiprocessing leaves out


def _fork_the_fork_server():
    """Let a fork server that the program itself starts be a fork, too, not a fresh Python."""
    spawn = util.spawnv_passfds

    def fork(path, arguments, descriptors):
        code = arguments[-1]
        if "multiprocessing.forkserver" not in code:  # the resource tracker
            return spawn(path, arguments, descriptors)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return pid
        try:
            _leave_open(descriptors)
            exec(code, {})
        finally:
            os._exit(0)

    util.spawnv_passfds = fork


def _leave_open(descriptors):
    """Make all others lead nowhere, as exec would close them; their numbers stay taken."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if number > 2 and number not in descriptors:
            with contextlib.suppress(OSError):  # the one that lists the folder
                os.fstat(number)
                os.dup2(nowhere, number, inheritable=False)


def _forget_our_package():
    for name in [name for name in sys.modules if name.partition(".")[0] == "lozo_bench"]:
        del sys.modules[name]
