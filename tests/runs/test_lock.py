"""The lock: one process at a time, and takeover of stale locks, whatever the clocks say."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import wait_for

from lozo_bench.errors import UserError
from lozo_bench.runs import lock as module
from lozo_bench.runs.lock import LOCK, Busy, Lock, lock_owner
from lozo_bench.runs.lock_owner import myself

# A process that takes and releases the lock again and again. Arguments: the lock's folder and the
# number of rounds. Half of the time it exits without releasing. Two processes that held the lock at
# once would see each other's mark file.
RACER = """
import os, random, sys, time
from pathlib import Path
from lozo_bench.runs.lock import Busy, Lock

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
mark, rng = folder / "mark", random.Random(os.getpid())
for _ in range(rounds):
    if os.fork():
        os.wait()
        continue
    while True:
        try:
            with Lock(folder):
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
                time.sleep(rng.random() * 0.002)
                mark.unlink()
                (folder / "count").open("a").write("x")
                if rng.random() < 0.5:
                    os._exit(0)
                break
        except Busy:
            time.sleep(rng.random() * 0.005)
        except FileExistsError:
            (folder / "two at once").touch()
            os._exit(1)
    os._exit(0)
"""


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def leave_behind(folder, age_s=0.0, **changes):
    """Write the lock of a process that differs from this one by ``changes``, ``age_s`` ago."""
    owner = dataclasses.replace(myself(), **changes)
    path = folder / LOCK
    path.write_text(json.dumps(dataclasses.asdict(owner)))
    then = time.time() - age_s
    os.utime(path, (then, then))
    return owner


def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait(timeout=60)
    return process.pid


def test_racing_processes_hold_the_lock_one_at_a_time(tmp_path):
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path), "15"]) for _ in range(8)
    ]
    assert [racer.wait(timeout=120) for racer in racers] == [0] * 8
    assert not (tmp_path / "two at once").exists()
    assert len((tmp_path / "count").read_text()) == 8 * 15
    with Lock(tmp_path):
        pass
    assert files(tmp_path) == ["count"]


def test_release_leaves_no_files(tmp_path):
    with Lock(tmp_path) as lock:
        assert files(tmp_path) == [LOCK]
        lock.check()
    assert files(tmp_path) == []


def test_busy_names_the_lock_owner_in_one_line(tmp_path):
    with Lock(tmp_path), pytest.raises(Busy) as refused, Lock(tmp_path):
        pass
    message = str(refused.value)
    assert f"process {os.getpid()} on {myself().host}, since 20" in message
    assert str(tmp_path) in message
    assert "\n" not in message


def test_a_refused_process_leaves_no_file(tmp_path):
    with Lock(tmp_path):
        with pytest.raises(Busy), Lock(tmp_path):
            pass
        assert files(tmp_path) == [LOCK]


def test_a_zombie_process_does_not_hold_the_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from lozo_bench.runs.lock import Lock\n"
        "with Lock(Path(sys.argv[1])): time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as process:
        wait_for(lambda: lock_owner(tmp_path))
        assert lock_owner(tmp_path).pid == process.pid
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in /proc
        assert lock_owner(tmp_path) is None
        with Lock(tmp_path) as lock:
            lock.check()
    assert files(tmp_path) == []


def test_a_reused_pid_is_recognized_as_another_process(tmp_path):
    leave_behind(tmp_path, started="1")
    with Lock(tmp_path):
        assert lock_owner(tmp_path).started == myself().started


def test_a_suspended_process_keeps_its_lock(tmp_path):
    leave_behind(tmp_path, age_s=9999, pid=os.getppid(), started=started(os.getppid()))
    with pytest.raises(Busy), Lock(tmp_path):
        pass


def started(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"space": "another boot or container"}])
def test_a_lock_from_another_machine_is_stale_after_three_minutes(tmp_path, other):
    """Its pid has no meaning on this machine, whether or not a process here has the same one."""
    leave_behind(tmp_path, age_s=170, pid=dead_pid(), **other)
    assert lock_owner(tmp_path) is not None
    with pytest.raises(Busy), Lock(tmp_path):
        pass
    leave_behind(tmp_path, age_s=190, pid=os.getpid(), **other)
    assert lock_owner(tmp_path) is None
    with Lock(tmp_path):
        pass
    assert files(tmp_path) == []


@pytest.mark.parametrize("wrong_by_s", [-86400, 86400])
def test_only_the_file_servers_clock_decides_whether_a_lock_is_stale(
    tmp_path, monkeypatch, wrong_by_s
):
    now = time.time
    leave_behind(tmp_path, age_s=100, host="elsewhere", since="1999-01-01 00:00:00")
    monkeypatch.setattr(time, "time", lambda: now() + wrong_by_s)
    assert lock_owner(tmp_path) is not None
    monkeypatch.undo()
    leave_behind(tmp_path, age_s=200, host="elsewhere", since="2999-01-01 00:00:00")
    monkeypatch.setattr(time, "time", lambda: now() + wrong_by_s)
    assert lock_owner(tmp_path) is None


def slurm(monkeypatch, restarts=None, **names):
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    for name, value in names.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    if restarts:
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))


@pytest.mark.parametrize(
    "names", [{"JOB_ID": "7"}, {"JOB_ID": "9", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "2"}]
)
def test_a_requeued_job_takes_over_its_own_lock_at_once(tmp_path, monkeypatch, names):
    slurm(monkeypatch, **names)
    leave_behind(tmp_path, host="elsewhere")
    slurm(monkeypatch, 1, **names)
    with Lock(tmp_path):
        assert lock_owner(tmp_path).life == 1


@pytest.mark.parametrize(
    "names",
    [
        {"JOB_ID": "8"},
        {"JOB_ID": "7"},  # another process of the same start of the job, on another node
        {"JOB_ID": "10", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "3"},
    ],
)
def test_another_job_or_task_does_not_take_over_the_lock(tmp_path, monkeypatch, names):
    slurm(monkeypatch, JOB_ID="7")
    leave_behind(tmp_path, host="elsewhere")
    slurm(monkeypatch, **names)
    with pytest.raises(Busy, match=r"SLURM job 7\)"), Lock(tmp_path):
        pass


NOT_A_TOKEN = json.dumps({**dataclasses.asdict(myself()), "token": "../../x"}).encode()
NOT_A_PID = json.dumps({**dataclasses.asdict(myself()), "pid": "self"}).encode()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b'{"host": 1}', b"\xff", b"[" * 9999, b"\0" * 99, NOT_A_TOKEN, NOT_A_PID],
)
def test_a_damaged_lock_is_stale_by_its_age(tmp_path, content):
    path = tmp_path / LOCK
    path.write_bytes(content)
    with pytest.raises(Busy), Lock(tmp_path):
        pass
    os.utime(path, (1, 1))
    with Lock(tmp_path) as lock:
        lock.check()
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda path: path.symlink_to("nowhere"), "a link"),
        (lambda path: path.symlink_to(path.with_name("elsewhere")), "a link"),
        (lambda path: path.mkdir(), "a folder"),
        (os.mkfifo, "no file"),
    ],
)
@pytest.mark.parametrize("name", [LOCK, "takeover"])
def test_what_is_no_file_in_place_of_the_lock_is_one_line(tmp_path, make, kind, name):
    (tmp_path / "elsewhere").touch()
    path = tmp_path / LOCK
    if name == "takeover":
        path = tmp_path / f"{LOCK}.{leave_behind(tmp_path, pid=dead_pid()).token}"
    make(path)
    before = files(tmp_path)
    with pytest.raises(UserError, match=f"it is {kind}, .* remove it") as refused, Lock(tmp_path):
        pass
    assert str(path) in str(refused.value)
    assert lock_owner(tmp_path) is None
    assert files(tmp_path) == before


@pytest.mark.parametrize("ahead_s", [300, 86400, 10**9])
def test_a_lock_with_a_time_in_the_future_is_stale(tmp_path, ahead_s):
    """No owner renews it: a renewal sets the present time."""
    leave_behind(tmp_path, age_s=-ahead_s, host="elsewhere")
    assert lock_owner(tmp_path) is None
    with Lock(tmp_path) as lock:
        lock.check()
    assert files(tmp_path) == []


def test_a_lock_without_read_permission_is_stale_by_its_age(tmp_path, monkeypatch):
    opened = os.open

    def refuse(path, *arguments, **options):
        if Path(path).name == LOCK and "foreign" in Path(path).read_text():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    leave_behind(tmp_path, host="foreign")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Busy), Lock(tmp_path):
        pass
    leave_behind(tmp_path, age_s=200, host="foreign")
    with Lock(tmp_path) as lock:
        lock.check()


def test_an_interrupted_takeover_is_taken_over_too(tmp_path):
    dead = {"pid": dead_pid(), "started": "1"}
    first = leave_behind(tmp_path, **dead)
    (tmp_path / LOCK).rename(tmp_path / "kept")
    leave_behind(tmp_path, **dead)
    (tmp_path / LOCK).rename(tmp_path / f"{LOCK}.{first.token}")
    (tmp_path / "kept").rename(tmp_path / LOCK)
    with Lock(tmp_path) as lock:
        lock.check()
        assert files(tmp_path) == [LOCK]


def test_while_a_running_process_takes_over_others_are_refused(tmp_path):
    dead = leave_behind(tmp_path, pid=dead_pid())
    (tmp_path / LOCK).rename(tmp_path / "kept")
    leave_behind(tmp_path)
    (tmp_path / LOCK).rename(tmp_path / f"{LOCK}.{dead.token}")
    (tmp_path / "kept").rename(tmp_path / LOCK)
    with pytest.raises(Busy), Lock(tmp_path):
        pass


def test_only_the_drafts_of_dead_processes_are_removed(tmp_path):
    for name, changes in {"dead": {"pid": dead_pid()}, "living": {}}.items():
        leave_behind(tmp_path, **changes)
        (tmp_path / LOCK).rename(tmp_path / f".lock-{name}")
    with Lock(tmp_path):
        assert files(tmp_path) == [".lock-living", LOCK]


def test_the_lock_is_renewed_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RENEW_EVERY_S", 0.02)
    with Lock(tmp_path):
        os.utime(tmp_path / LOCK, (1, 1))
        wait_for(lambda: (tmp_path / LOCK).stat().st_mtime >= 2)


@pytest.mark.parametrize("how", ["removed", "taken over"])
def test_a_process_that_lost_the_lock_stops_and_leaves_the_new_lock(tmp_path, monkeypatch, how):
    with Lock(tmp_path) as lock:
        lock.check()
        if how == "removed":
            (tmp_path / LOCK).unlink()
        else:
            leave_behind(tmp_path, host="elsewhere", pid=77)
        monkeypatch.setattr(
            module, "RENEW_EVERY_S", 0.0
        )  # as if the process had been suspended until now
        with pytest.raises(UserError, match=how):
            lock.check()
    assert files(tmp_path) == ([] if how == "removed" else [LOCK])


def test_an_unreachable_file_server_is_tolerated_until_the_lock_is_stale(tmp_path, monkeypatch):
    def unreachable(*_):
        raise OSError(errno.EIO, "Input/output error")

    with Lock(tmp_path) as lock:
        monkeypatch.setattr(module, "RENEW_EVERY_S", 0.0)
        monkeypatch.setattr(os, "utime", unreachable)
        lock.check()
        monkeypatch.setattr(module, "STALE_S", 0.0)
        with pytest.raises(UserError, match="could not be renewed"):
            lock.check()


def test_a_forked_child_neither_renews_nor_releases(tmp_path):
    with Lock(tmp_path) as lock:
        child = os.fork()
        if not child:
            lock.check()
            lock.__exit__(None, None, None)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        lock.check()
        assert files(tmp_path) == [LOCK]


def test_the_lock_works_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    leave_behind(tmp_path, pid=dead_pid())
    with Lock(tmp_path) as lock:
        lock.check()
        with pytest.raises(Busy), Lock(tmp_path):
            pass
    assert files(tmp_path) == []


def test_in_a_read_only_folder_the_local_clock_is_used(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    leave_behind(tmp_path, age_s=200, host="elsewhere")
    monkeypatch.setattr(Path, "write_text", refuse)
    assert lock_owner(tmp_path) is None


def test_a_folder_without_a_lock_has_no_owner(tmp_path):
    assert lock_owner(tmp_path) is None
