"""A clip that kills its process costs that clip and nothing else; here and on a cluster."""

from __future__ import annotations

import pytest
from deadly_jobs import write_name

from dicetalk.data.scheduler import run_dask, run_local
from dicetalk.errors import DicetalkError

GOOD = [f"good-{number}" for number in range(6)]


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_pool_goes_on_after_a_death(tmp_path):
    jobs = [(name, tmp_path) for name in [*GOOD[:2], "killed", "crash", "hang", *GOOD[2:]]]
    given_up = {}
    run_local(write_name, jobs, 2, "test", lambda job, how: given_up.update({job[0]: how}))
    assert names(tmp_path) == GOOD
    assert given_up == {"killed": "exit status -9", "crash": "exit status -6", "hang": "took too long"}


def test_an_error_ends_the_work(tmp_path):
    with pytest.raises(RuntimeError, match="about the machine"):
        run_local(write_name, [("bug", tmp_path), *((name, tmp_path) for name in GOOD)], 1, "test", print)


def test_no_cluster(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("dicetalk.data.scheduler.CONNECT_SECONDS", 1)
    with pytest.raises(DicetalkError, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        run_dask(write_name, [("good", tmp_path)], "tcp://127.0.0.1:9", "test", print)


@pytest.mark.slow
def test_a_dask_cluster_goes_on_after_a_death(tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"processes": True, "dashboard_address": None}
    jobs = [(name, tmp_path) for name in [*GOOD[:3], "killed", *GOOD[3:]]]
    given_up = {}

    def give_up(job, how):
        given_up[job[0]] = how

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster:
        run_dask(write_name, jobs, cluster.scheduler_address, "test", give_up)
    assert names(tmp_path) == GOOD and given_up == {"killed": "its workers died"}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, **options) as cluster:
        with pytest.raises(DicetalkError, match="one thread each"):
            run_dask(write_name, jobs, cluster.scheduler_address, "test", print)
