"""One process at a time, whoever died, wherever, and whatever its clock said."""

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
from lozo_bench.runs.lock import LOCK, Busy, Lock, holder
from lozo_bench.runs.who import myself

# Enters, leaves and enters again; with the folder of the lock, the rounds, and how often a holder
# ends without releasing. Two at once would find each other's mark.
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
    """A lock as a process that differs from this one by ``changes`` left it ``age_s`` ago."""
    who = dataclasses.replace(myself(), **changes)
    path = folder / LOCK
    path.write_text(json.dumps(dataclasses.asdict(who)))
    then = time.time() - age_s
    os.utime(path, (then, then))
    return who


def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait(timeout=60)
    return process.pid


def test_of_processes_that_race_one_at_a_time_is_in_and_dead_ones_are_taken_over(tmp_path):
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path), "15"]) for _ in range(8)
    ]
    assert [racer.wait(timeout=120) for racer in racers] == [0] * 8
    assert not (tmp_path / "two at once").exists()
    assert len((tmp_path / "count").read_text()) == 8 * 15
    with Lock(tmp_path):
        pass
    assert files(tmp_path) == ["count"]


def test_release_leaves_nothing(tmp_path):
    with Lock(tmp_path) as lock:
        assert files(tmp_path) == [LOCK]
        lock.check()
    assert files(tmp_path) == []


def test_busy_names_the_holder_in_one_line(tmp_path):
    with Lock(tmp_path), pytest.raises(Busy) as refused, Lock(tmp_path):
        pass
    told = str(refused.value)
    assert f"process {os.getpid()} on {myself().host}, since 20" in told
    assert str(tmp_path) in told
    assert "\n" not in told


def test_who_is_refused_leaves_no_file_behind(tmp_path):
    with Lock(tmp_path):
        with pytest.raises(Busy), Lock(tmp_path):
            pass
        assert files(tmp_path) == [LOCK]


def test_a_killed_process_holds_nothing_though_nobody_has_waited_for_it(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from lozo_bench.runs.lock import Lock\n"
        "with Lock(Path(sys.argv[1])): time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as process:
        wait_for(lambda: holder(tmp_path))
        assert holder(tmp_path).pid == process.pid
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in /proc
        assert holder(tmp_path) is None
        with Lock(tmp_path) as lock:
            lock.check()
    assert files(tmp_path) == []


def test_a_pid_that_came_again_is_another_process(tmp_path):
    leave_behind(tmp_path, started="1")
    with Lock(tmp_path):
        assert holder(tmp_path).started == myself().started


def test_a_living_process_keeps_its_lock_however_long_it_was_suspended(tmp_path):
    leave_behind(tmp_path, age_s=9999, pid=os.getppid(), started=started(os.getppid()))
    with pytest.raises(Busy), Lock(tmp_path):
        pass


def started(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"space": "another boot or container"}])
def test_a_process_elsewhere_lives_for_three_minutes_after_its_last_sign(tmp_path, other):
    """Its pid says nothing here, whether there is such a process or not."""
    leave_behind(tmp_path, age_s=170, pid=dead_pid(), **other)
    assert holder(tmp_path) is not None
    with pytest.raises(Busy), Lock(tmp_path):
        pass
    leave_behind(tmp_path, age_s=190, pid=os.getpid(), **other)
    assert holder(tmp_path) is None
    with Lock(tmp_path):
        pass
    assert files(tmp_path) == []


@pytest.mark.parametrize("wrong_by_s", [-86400, 86400])
def test_only_the_file_servers_clock_counts(tmp_path, monkeypatch, wrong_by_s):
    now = time.time
    leave_behind(tmp_path, age_s=100, host="elsewhere", since="1999-01-01 00:00:00")
    monkeypatch.setattr(time, "time", lambda: now() + wrong_by_s)
    assert holder(tmp_path) is not None
    monkeypatch.undo()
    leave_behind(tmp_path, age_s=200, host="elsewhere", since="2999-01-01 00:00:00")
    monkeypatch.setattr(time, "time", lambda: now() + wrong_by_s)
    assert holder(tmp_path) is None


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
def test_a_job_that_was_requeued_takes_its_own_lock_at_once_on_another_host(
    tmp_path, monkeypatch, names
):
    slurm(monkeypatch, **names)
    leave_behind(tmp_path, host="elsewhere")
    slurm(monkeypatch, 1, **names)
    with Lock(tmp_path):
        assert holder(tmp_path).life == 1


@pytest.mark.parametrize(
    "names",
    [
        {"JOB_ID": "8"},
        {"JOB_ID": "7"},  # another process of the same life of the job, on another node
        {"JOB_ID": "10", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "3"},
    ],
)
def test_another_job_or_task_is_somebody_else(tmp_path, monkeypatch, names):
    slurm(monkeypatch, JOB_ID="7")
    leave_behind(tmp_path, host="elsewhere")
    slurm(monkeypatch, **names)
    with pytest.raises(Busy, match=r"SLURM job 7\)"), Lock(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"host": 1}', b"\xff"])
def test_a_damaged_lock_counts_by_its_age(tmp_path, content):
    path = tmp_path / LOCK
    path.write_bytes(content)
    with pytest.raises(Busy), Lock(tmp_path):
        pass
    os.utime(path, (1, 1))
    with Lock(tmp_path) as lock:
        lock.check()
    assert files(tmp_path) == []


def test_a_takeover_that_was_cut_short_is_taken_over_too(tmp_path):
    dead = {"pid": dead_pid(), "started": "1"}
    first = leave_behind(tmp_path, **dead)
    (tmp_path / LOCK).rename(tmp_path / "kept")
    leave_behind(tmp_path, **dead)
    (tmp_path / LOCK).rename(tmp_path / f"{LOCK}.{first.token}")
    (tmp_path / "kept").rename(tmp_path / LOCK)
    with Lock(tmp_path) as lock:
        lock.check()
        assert files(tmp_path) == [LOCK]


def test_while_a_living_process_takes_over_others_stay_away(tmp_path):
    dead = leave_behind(tmp_path, pid=dead_pid())
    (tmp_path / LOCK).rename(tmp_path / "kept")
    leave_behind(tmp_path)
    (tmp_path / LOCK).rename(tmp_path / f"{LOCK}.{dead.token}")
    (tmp_path / "kept").rename(tmp_path / LOCK)
    with pytest.raises(Busy), Lock(tmp_path):
        pass


def test_what_killed_processes_left_is_cleared_and_what_living_ones_need_is_not(tmp_path):
    for name, changes in {"dead": {"pid": dead_pid()}, "living": {}}.items():
        leave_behind(tmp_path, **changes)
        (tmp_path / LOCK).rename(tmp_path / f".lock-{name}")
    with Lock(tmp_path):
        assert files(tmp_path) == [".lock-living", LOCK]


def test_the_lock_is_renewed_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT_S", 0.02)
    with Lock(tmp_path):
        os.utime(tmp_path / LOCK, (1, 1))
        wait_for(lambda: (tmp_path / LOCK).stat().st_mtime >= 2)


@pytest.mark.parametrize("how", ["removed", "taken over"])
def test_who_lost_the_lock_stops_and_leaves_the_others_alone(tmp_path, monkeypatch, how):
    with Lock(tmp_path) as lock:
        lock.check()
        if how == "removed":
            (tmp_path / LOCK).unlink()
        else:
            leave_behind(tmp_path, host="elsewhere", pid=77)
        monkeypatch.setattr(module, "BEAT_S", 0.0)  # as if it had been suspended until now
        with pytest.raises(UserError, match=how):
            lock.check()
    assert files(tmp_path) == ([] if how == "removed" else [LOCK])


def test_a_file_server_that_is_away_is_waited_for_until_others_would_take_over(
    tmp_path, monkeypatch
):
    def away(*_):
        raise OSError(errno.EIO, "Input/output error")

    with Lock(tmp_path) as lock:
        monkeypatch.setattr(module, "BEAT_S", 0.0)
        monkeypatch.setattr(os, "utime", away)
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


def test_where_there_are_no_hard_links_the_lock_holds_too(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    leave_behind(tmp_path, pid=dead_pid())
    with Lock(tmp_path) as lock:
        lock.check()
        with pytest.raises(Busy), Lock(tmp_path):
            pass
    assert files(tmp_path) == []


def test_a_folder_that_may_only_be_read_is_judged_by_the_local_clock(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    leave_behind(tmp_path, age_s=200, host="elsewhere")
    monkeypatch.setattr(Path, "write_text", refuse)
    assert holder(tmp_path) is None


def test_nobody_holds_a_folder_without_a_lock(tmp_path):
    assert holder(tmp_path) is None
