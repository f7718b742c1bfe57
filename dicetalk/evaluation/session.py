"""One evaluation: measure clips in parallel, derive the systems, estimate every metric, list what failed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from dicetalk import weights
from dicetalk.config import Evaluate
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.clips import Clip
from dicetalk.evaluation.measure import Measured, Measurer, load_networks
from dicetalk.evaluation.protocol import load_protocol
from dicetalk.evaluation.scores import estimate_frechet, estimate_system, frechet_pairs, score_trial
from dicetalk.evaluation.statistics import Estimate
from dicetalk.evaluation.systems import (
    Reference,
    Trial,
    own_trials,
    real_trials,
    still_trials,
    wrong_audio_trials,
    wrong_emotion_trials,
)
from dicetalk.files import sha256_file
from dicetalk.progress import track

DERIVED_SYSTEMS = ("wrong_audio", "wrong_emotion")  # the same videos as `ours`, whose failures are listed
FRECHET_PARTS = {"fd_image": "image", "fd_video": "video"}


@dataclass(frozen=True)
class Evaluation:
    """The result.

    Attributes:
        report: the content of `metrics/evaluate.json`.
        per_clip: one row per video and system.
    """

    report: dict[str, Any]
    per_clip: pd.DataFrame


class Session:
    """Loaded networks, and what went wrong so far.

    Clips are measured by several threads, each computing on one core, so that numbers do not depend on how
    many threads there are.

    Args:
        evaluators: folder of the metric networks.
        settings: the `evaluate` section.
    """

    def __init__(self, evaluators: Path, settings: Evaluate) -> None:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        self.settings = settings
        self.protocol = load_protocol(settings.protocol)
        self.networks = load_networks(evaluators)
        self.failures: list[dict[str, str]] = []
        self._local = threading.local()

    def fail(self, system: str, clip_id: str, reason: str, metric: str = "all") -> None:
        """Record that a clip is missing from a metric."""
        self.failures.append({"system": system, "clip_id": clip_id, "metric": metric, "reason": reason})

    def measure(
        self,
        system: str,
        loaders: Mapping[str, Callable[[], Clip]],
        keep: Mapping[str, Collection[int]] | None = None,
    ) -> dict[str, Measured]:
        """Load and measure clips; those that fail are recorded and left out."""

        def attempt(clip_id: str) -> Measured | DicetalkError:
            try:
                clip = loaders[clip_id]()
                return self._measurer().measure(
                    clip, self.protocol.definition.num_frames, (keep or {}).get(clip_id, ())
                )
            except DicetalkError as error:
                return error

        measured = {}
        for clip_id, result in self._map(attempt, list(loaders), f"measure {system}"):
            if isinstance(result, DicetalkError):
                self.fail(system, clip_id, str(result))
            else:
                measured[clip_id] = result
        return measured

    def references(
        self, wanted: Mapping[str, tuple[str, int]], real: Mapping[str, Measured]
    ) -> dict[str, Reference]:
        """Measure reference images, each once, and return them by clip."""
        images = sorted({image for image in wanted.values() if image[0] in real})

        def measure(image: tuple[str, int]) -> Reference:
            frame, measurer = real[image[0]].frames[image[1]], self._measurer()
            repeated = np.repeat(frame[None], self.protocol.definition.num_frames, axis=0)
            return Reference(measurer.recognise(frame), measurer.see(repeated))

        measured = dict(self._map(measure, images, "measure reference images"))
        return {name: measured[image] for name, image in wanted.items() if name in real and image in measured}

    def conclude(
        self,
        videos: Mapping[str, Mapping[str, Measured]],
        real: Mapping[str, Measured],
        references: Mapping[str, Reference],
    ) -> Evaluation:
        """Score all systems, with floors derived from `ours`."""
        ours = videos.get("ours", {})
        if not ours:
            reasons = sorted({failure["reason"] for failure in self.failures})[:5]
            raise DicetalkError("Not one video of `ours` could be evaluated: " + "; ".join(reasons))
        compared = {clip_id: references[clip_id] for clip_id in ours}
        trials = {
            "real": list(real_trials(real, compared)),
            **{name: list(own_trials(name, measured, real, references)) for name, measured in videos.items()},
            "still": list(still_trials(real, compared)),
            "wrong_audio": list(wrong_audio_trials(ours, real, references)),
            "wrong_emotion": list(wrong_emotion_trials(ours, real, references)),
        }
        rows, estimates = [], {}
        skipped = dict(self.protocol.definition.left_out)
        for system, own in trials.items():
            if not own:
                skipped[system] = "no clip has the counterpart this system needs"
                continue
            system_rows = self._score(own)
            rows += system_rows
            estimates[system], missing = estimate_system(pd.DataFrame(system_rows), self.settings)
            skipped |= {f"{system}.{metric}": reason for metric, reason in missing.items()}
        for (system, metric), result in self._frechet(trials):
            if isinstance(result, DicetalkError):
                skipped[f"{system}.{metric}"] = str(result)
            else:
                estimates[system][metric] = result
        return Evaluation(self._report(estimates, skipped), pd.DataFrame(rows))

    def _score(self, trials: Iterable[Trial]) -> list[dict[str, Any]]:
        rows = []
        for trial in trials:
            row, problem = score_trial(trial, self.settings.max_shift_frames)
            rows.append(row)
            if problem is not None and trial.system not in DERIVED_SYSTEMS:
                self.fail(trial.system, trial.real.clip_id, problem, metric="lmd")
        return rows

    def _frechet(
        self, trials: Mapping[str, Sequence[Trial]]
    ) -> Iterator[tuple[tuple[str, str], Estimate | DicetalkError]]:
        def estimate(key: tuple[str, str]) -> Estimate | DicetalkError:
            system, metric = key
            try:
                pairs = frechet_pairs(trials[system], FRECHET_PARTS[metric])
                return estimate_frechet(pairs)
            except DicetalkError as error:
                return error

        keys = [(system, metric) for system, own in trials.items() if own for metric in FRECHET_PARTS]
        return self._map(estimate, keys, "Fréchet distances")

    def _report(
        self, estimates: Mapping[str, Mapping[str, Estimate]], skipped: Mapping[str, str]
    ) -> dict[str, Any]:
        networks = {
            kind: {"name": network.name, "sha256": network.sha256} for kind, network in self.networks.items()
        }
        networks["facemesh"] = {"name": "facemesh", "sha256": sha256_file(weights.resolve("facemesh"))}
        definition = self.protocol.definition
        return {
            "protocol": {
                "name": self.protocol.name,
                "sha256": self.protocol.sha256,
                **definition.model_dump(exclude={"networks", "left_out"}),
            },
            "networks": {metric: networks[kind] for metric, kind in definition.networks.items()},
            "systems": {
                system: {metric: found[metric].as_json() for metric in definition.networks if metric in found}
                for system, found in estimates.items()
            },
            "skipped": dict(skipped),
            "failures": self.failures,
        }

    def _measurer(self) -> Measurer:
        if not hasattr(self._local, "measurer"):
            self._local.measurer = Measurer(self.networks, self.protocol.definition.landmark_stride)
        return self._local.measurer

    def _map(
        self, function: Callable[[Any], Any], items: Sequence[Any], label: str
    ) -> Iterator[tuple[Any, Any]]:
        """Yield `(item, function(item))` in order, computed by `settings.threads` threads."""
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(self.settings.threads) as pool:
            yield from zip(items, track(pool.map(function, items), label, total=len(items)), strict=True)
