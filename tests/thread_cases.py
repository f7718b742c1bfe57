"""Prints what the number of allowed threads changes, as JSON; a process of its own for `test_threads.py`.

OpenBLAS chooses its kernels, and OpenMP how many threads a new thread may start, when they are loaded.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_corpus
import numpy as np
import test_evaluate
import torch
from threads import allowed_threads, threads_in_use

from dicetalk import weights
from dicetalk.config import load_params
from dicetalk.data.dataset import EncodedClips
from dicetalk.data.speech import LogMelSpeech
from dicetalk.evaluation import measure, session
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.report.embedding_map import project
from dicetalk.training.priors import class_priors

REPOSITORY = Path(__file__).resolve().parents[1]
SPEECH_SHAPE = (1, 1000)  # wide enough that the number of threads shows


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def priors_of(folder: Path) -> Callable[[], np.ndarray]:
    fake_corpus.SPEECH_SHAPE = SPEECH_SHAPE
    clips = EncodedClips([fake_corpus.write_encoded_mead(folder / "mead", 2, 1, num_frames=8)], "train")
    torch.manual_seed(0)
    embedder = EmotionEmbedder(*SPEECH_SHAPE, hidden_dim=32, num_layers=1, clip_frames=8)
    return lambda: np.stack(list(class_priors(embedder, clips).values()))


def digests(folder: Path) -> dict[str, list[str]]:
    """Return the digests of each result while 1, 2 and 4 threads are allowed."""
    cases: dict[str, Callable[[], np.ndarray]] = {
        "log-mel spectrogram": lambda: LogMelSpeech(40).encode(noise(38_400)),
        "priors": priors_of(folder),
        "map of embeddings": lambda: project(noise(150, 64)),
    }
    found: dict[str, list[str]] = {}
    for name, compute in cases.items():
        for number in (1, 2, 4):
            with allowed_threads(number):
                found.setdefault(name, []).append(hashlib.sha256(compute().tobytes()).hexdigest())
    return found


def threads_of_evaluation(folder: Path) -> dict[str, list[dict[str, int]]]:
    """Return how many threads an evaluation would use where it measures videos, and where it scores them."""
    seen: dict[str, list[dict[str, int]]] = {"measure": [], "score": []}

    def watch(place: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: seen[place].append(threads_in_use()) or function(*arguments)

    measure.LandmarkReader = test_evaluate.PassiveReader
    measure.Measurer.measure = watch("measure", measure.Measurer.measure)
    session.score_trial = watch("score", session.score_trial)
    weights.resolve = lambda name: Path(__file__)
    test_evaluate.build(folder)
    settings = load_params(REPOSITORY / "profiles/demo.yaml").evaluate
    settings = settings.model_copy(update={"bootstrap_samples": 20})
    with allowed_threads(4):
        test_evaluate.World(folder, settings).evaluate(threads=2)
    return seen


def main() -> None:
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        found = {"digests": digests(Path(first)), "evaluation": threads_of_evaluation(Path(second))}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
