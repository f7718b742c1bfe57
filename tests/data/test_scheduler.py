"""A clip that kills its process costs that clip and nothing else; a process that is killed costs nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from deadly_jobs import DiesOnArrival, pool_of, write_name

from dicetalk.data.scheduler import run_dask, run_local
from dicetalk.errors import DicetalkError

GOOD = [f"good-{number}" for number in range(6)]
KILLED = "SIGKILL (perhaps out of memory)"


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def jobs_of(folder, *those: str) -> list:
    return [(name, folder) for name in those]


def not_expected(job, how):
    pytest.fail(f"{job[0]} was given up: {how}")


def test_the_pool_goes_on_after_a_death(tmp_path):
    jobs = jobs_of(tmp_path, *GOOD[:2], "killed", "crash", "hang", *GOOD[2:])
    given_up = {}
    recovered = run_local(write_name, jobs, 2, "test", lambda job, how: given_up.update({job[0]: how}))
    assert names(tmp_path) == GOOD and recovered == 0
    assert given_up == {
        "killed": f"{KILLED}; again alone: {KILLED}",
        "crash": "SIGABRT; again alone: SIGABRT",
        "hang": "took too long; again alone: took too long",
    }


def test_what_was_killed_is_tried_again_with_nothing_beside_it(tmp_path, capsys):
    unlucky = ["unlucky-0", "unlucky-1", "unlucky-2"]
    jobs = jobs_of(tmp_path, unlucky[0], *GOOD, *unlucky[1:])
    assert run_local(write_name, jobs, 3, "test", not_expected) == 3
    assert names(tmp_path) == GOOD + unlucky
    assert {(tmp_path / name).read_text() for name in unlucky} == {"1"}  # processes at that moment
    said = capsys.readouterr().err
    assert f"test: 3 crashed (3 x {KILLED}); trying them again, one at a time" in said


def test_all_processes_may_be_killed_at_once(tmp_path):
    jobs = jobs_of(tmp_path, *GOOD[:2], "massacre", *GOOD[2:])
    assert run_local(write_name, jobs, 4, "test", not_expected) >= 1
    assert names(tmp_path) == [*GOOD, "massacre"]


def test_processes_that_cannot_start_end_the_work(tmp_path):
    with pytest.raises(DicetalkError, match=r"end before they begin \(exit status 3\)"):
        run_local(DiesOnArrival(), jobs_of(tmp_path, *GOOD), 1, "test", print)


def test_an_error_ends_the_work(tmp_path):
    with pytest.raises(RuntimeError, match="about the machine"):
        run_local(write_name, jobs_of(tmp_path, "bug", *GOOD), 1, "test", print)
    assert not pool_of(psutil.Process()) and not names(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they end after their clip")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_main_one(tmp_path, ending):
    paths = [str(Path(__file__).parent), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "deadly_jobs", str(tmp_path)]
    main = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        processes: list[psutil.Process] = []
        # Both sleep once they have read their job; a started process imports for about a second before that.
        while len(processes) < 2 or any(p.status() != psutil.STATUS_SLEEPING for p in processes):
            assert time.monotonic() < deadline and main.poll() is None
            processes = pool_of(psutil.Process(main.pid))
            time.sleep(0.5)
        main.send_signal(ending)
        main.wait()
        gone, alive = psutil.wait_procs(processes, timeout=10)
        assert not alive
    finally:
        main.kill()


def test_no_cluster(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("dicetalk.data.scheduler.CONNECT_SECONDS", 1)
    with pytest.raises(DicetalkError, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        run_dask(write_name, [("good", tmp_path)], "tcp://127.0.0.1:9", "test", print)


def test_a_cluster_without_workers(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("dicetalk.data.scheduler.CHECK_SECONDS", 0.1)
    with distributed.LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        with pytest.raises(DicetalkError, match="No Dask worker is left"):
            run_dask(write_name, jobs_of(tmp_path, "good"), cluster.scheduler_address, "test", print)


@pytest.mark.slow
def test_a_dask_cluster_goes_on_after_a_death(tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"processes": True, "dashboard_address": None}
    jobs = jobs_of(tmp_path, *GOOD[:3], "late-killed", *GOOD[3:])
    unlucky = jobs_of(tmp_path, "late-unlucky")
    given_up = {}

    def give_up(job, how):
        given_up[job[0]] = how

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster:
        cluster.scheduler.allowed_failures = 0  # Dask itself would try three times more, side by side
        run_dask(write_name, jobs, cluster.scheduler_address, "test", give_up)
        assert names(tmp_path) == GOOD
        assert given_up == {"late-killed": "its workers died; again alone: its workers died"}
        assert run_dask(write_name, unlucky, cluster.scheduler_address, "test", not_expected) == 1
        assert names(tmp_path) == [*GOOD, "unlucky"]
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, **options) as cluster:
        with pytest.raises(DicetalkError, match="one thread each"):
            run_dask(write_name, jobs, cluster.scheduler_address, "test", print)
