"""Killed at any moment, on any scheduler: the output is that of an unbroken run, byte for byte."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from deadly_jobs import pool_of
from drawn_clip import drawn_head, write_av
from fake_face import COMPUTE, SETTINGS

from dicetalk import weights
from dicetalk.data.preprocess import preprocess_folder

NUM_CLIPS, NUM_KILLS = 24, 10
COMMAND = """
import sys
from pathlib import Path
from fake_face import COMPUTE, SETTINGS
from dicetalk.data.preprocess import preprocess_folder
if __name__ == "__main__":
    settings = SETTINGS.model_copy(update={"clips_per_shard": 5})
    preprocess_folder(Path("raw"), Path(sys.argv[1]), settings, COMPUTE.model_copy(update={"workers": 2}))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Clips that differ, two of them unusable."""
    weights.fetch(["blazeface-short-range", "facemesh"])
    folder = tmp_path_factory.mktemp("resuming")
    (folder / "raw").mkdir()
    frames, samples = drawn_head()
    for number in range(NUM_CLIPS):
        shifted = np.roll(frames, number, axis=2)
        times = np.arange(len(frames)) / 25
        write_av(folder / "raw" / f"clip-{number:02d}.mp4", shifted, times, samples)
    (folder / "raw" / "clip-03.mp4").write_bytes(b"damaged")
    write_av(folder / "raw" / "clip-09.mp4", np.full_like(frames, 80), times, samples)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def start(folder: Path, output: str | Path, stderr: int = subprocess.DEVNULL) -> subprocess.Popen:
    script = folder / "run.py"
    script.write_text(COMMAND)
    paths = [str(Path(__file__).parent), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.Popen(
        [sys.executable, str(script), str(output)],
        cwd=folder,
        env=environment,
        start_new_session=True,
        stderr=stderr,
        text=True,
    )


def finished(folder: Path, output: str) -> int:
    run_dir = folder / f".{output}-run"
    return len([path for path in run_dir.glob("*.*") if not path.name.startswith(".")])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills(corpus):
    began = time.monotonic()
    assert start(corpus, "whole").wait() == 0
    seconds_per_clip = (time.monotonic() - began) / NUM_CLIPS
    rng = random.Random(0)
    for kill in range(NUM_KILLS):
        process = start(corpus, "broken")
        goal = min(finished(corpus, "broken") + rng.randint(0, 2), NUM_CLIPS - 8)
        while finished(corpus, "broken") < goal and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, seconds_per_clip))  # several clips are left, however fast the machine
        assert process.poll() is None, "the run ended before it could be killed"
        if kill % 2:
            os.kill(process.pid, signal.SIGKILL)  # the kernel ends its workers
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (corpus / "broken").exists()
    last = start(corpus, "broken")
    assert last.wait() == 0
    assert content(corpus / "broken") == content(corpus / "whole")
    assert {path.name for path in corpus.iterdir()} == {
        "raw", "run.py", "whole", "broken", ".whole-run-ledger.json", ".broken-run-ledger.json"
    }  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.killpg(last.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("processes are left over")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_killed_from_outside_cost_nothing(corpus, tmp_path):
    assert start(corpus, tmp_path / "whole").wait() == 0
    process = start(corpus, tmp_path / "out", subprocess.PIPE)
    for goal, num_killed in ((3, 1), (9, 2)):  # one of two, then all
        while finished(tmp_path, "out") < goal:
            assert process.poll() is None
            time.sleep(0.01)
        for worker in pool_of(psutil.Process(process.pid))[:num_killed]:
            worker.kill()
    said = process.communicate()[1]
    assert process.returncode == 0
    assert re.search(r"crashed \([23] x SIGKILL \(perhaps out of memory\)\); trying them again", said), said
    assert re.search(r"[23] clips crashed and were done at the second try, alone\.", said), said
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_dask_cluster_gives_the_same_bytes(corpus, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(corpus)
    settings = SETTINGS.model_copy(update={"clips_per_shard": 5})
    preprocess_folder(Path("raw"), tmp_path / "local", settings, COMPUTE)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        address = {"scheduler": cluster.scheduler_address}
        preprocess_folder(Path("raw"), tmp_path / "dask", settings, COMPUTE.model_copy(update=address))
    assert content(tmp_path / "dask") == content(tmp_path / "local")
