"""The same bits on any number of threads, where a library would choose the number itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threads import allowed_threads, threads_in_use

from dicetalk.compute.precision import fixed_threads
from dicetalk.training.priors import cosine_matrix

TESTS = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What `thread_cases.py` finds in a process that is allowed four threads."""
    path = os.pathsep.join(map(str, (TESTS.parent, TESTS, TESTS / "evaluation")))
    environment = os.environ | {"OMP_NUM_THREADS": "4", "PYTHONPATH": path}
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        environment["OPENBLAS_CORETYPE"] = "Haswell"  # the kernels of newer processors rarely show the number
    script = [sys.executable, str(TESTS / "thread_cases.py")]
    run = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("case", ["log-mel spectrogram", "priors", "map of embeddings"])
def test_results_do_not_depend_on_the_allowed_threads(found: dict[str, Any], case: str):
    digests = found["digests"][case]
    assert len(digests) == 3 and len(set(digests)) == 1


@pytest.mark.parametrize("place", ["measure", "score"])
def test_an_evaluation_computes_on_one_core_everywhere(found: dict[str, Any], place: str):
    """Also in the threads that measure clips, each of which starts with what the environment allows."""
    seen = found["evaluation"][place]
    assert len(seen) >= 16 and all(threads == {"blas": 1, "torch": 1} for threads in seen)


def test_cosines_do_not_depend_on_the_allowed_threads():
    rows = np.random.default_rng(0).normal(size=(300, 256))
    results = []
    for number in (1, 2, 4):
        with allowed_threads(number):
            results.append(cosine_matrix(rows).tobytes())
    assert len(set(results)) == 1


def test_fixed_threads_end_as_they_were_found_even_after_an_error():
    with allowed_threads(3):
        with pytest.raises(RuntimeError, match="failed"), fixed_threads(2):
            assert threads_in_use() == {"blas": 1, "torch": 2}
            raise RuntimeError("failed")
        assert threads_in_use() == {"blas": 3, "torch": 3}


def test_fixed_threads_of_a_function_hold_in_every_call():
    count = fixed_threads()(threads_in_use)
    with allowed_threads(3):
        assert [count(), count()] == 2 * [{"blas": 1, "torch": 1}]
        assert threads_in_use() == {"blas": 3, "torch": 3}
