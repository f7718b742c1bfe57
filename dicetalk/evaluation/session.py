"""One evaluation: measure clips in parallel, derive the systems, estimate every metric, list what failed."""

from __future__ import annotations

import json
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

from dicetalk.config import Evaluate
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.clips import Source
from dicetalk.evaluation.measure import Measurer
from dicetalk.evaluation.metrics.metric import SetDistance
from dicetalk.evaluation.observations import Observation, Store
from dicetalk.evaluation.paired import paired_tests
from dicetalk.evaluation.protocol import load_protocol
from dicetalk.evaluation.readers import load_readers
from dicetalk.evaluation.roles import FEATURES
from dicetalk.evaluation.scores import (
    clip_means,
    estimate_distance,
    estimate_system,
    score_trial,
    set_pairs,
)
from dicetalk.evaluation.statistics import Estimate
from dicetalk.evaluation.strength import strength_differences
from dicetalk.evaluation.systems import DERIVED, SYSTEMS, find_system, own_trials
from dicetalk.evaluation.trial import Measured, Trial
from dicetalk.progress import track


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

    Clips are measured by several threads, each computing on one core within `fixed_threads`, so that numbers
    do not depend on how many threads there are. What was measured lies in `work`; the same evaluation takes
    it up again.

    Args:
        evaluators: folder of the in-domain metric networks.
        settings: the `evaluate` section.
        threads: clips measured at a time.
        work: folder for measured clips.
    """

    def __init__(self, evaluators: Path, settings: Evaluate, threads: int, work: Path) -> None:
        cv2.setNumThreads(1)
        self.settings, self.threads = settings, threads
        self.protocol = load_protocol(settings.protocol)
        self.definition = self.protocol.definition
        self.readers, self.missing = load_readers(self.definition, evaluators)
        networks = {role: (reader.name, reader.sha256) for role, reader in self.readers.items()}
        self.store = Store(work, json.dumps([self.protocol.sha256, networks], sort_keys=True))
        self.failures: list[dict[str, str]] = []
        self._local = threading.local()

    def fail(self, system: str, clip_id: str, reason: str, metric: str = "all") -> None:
        """Record that a clip is missing from a metric."""
        self.failures.append({"system": system, "clip_id": clip_id, "metric": metric, "reason": reason})

    def measure(
        self,
        system: str,
        sources: Mapping[str, Source],
        keep: Mapping[str, Collection[int]] | None = None,
        real: Mapping[str, Source] | None = None,
    ) -> dict[str, Measured]:
        """Load and measure clips; those that fail are recorded and left out.

        Args:
            system: its name, for messages.
            sources: the clips.
            keep: frames that serve as reference images, by clip.
            real: the clips whose pixels they are compared with, where the protocol does that.
        """
        pairs = {"pixels", "perceptual"} & set(self.definition.networks.values())
        compared = real if real is not None and pairs else {}

        def attempt(clip_id: str) -> Measured | DicetalkError:
            try:
                kept = sorted(keep[clip_id]) if keep else []
                return self._measure(sources[clip_id], kept, compared.get(clip_id))
            except DicetalkError as error:
                return error

        measured = {}
        for clip_id, result in self._map(attempt, list(sources), f"measure {system}"):
            if isinstance(result, DicetalkError):
                self.fail(system, clip_id, str(result))
            else:
                measured[clip_id] = result
        return measured

    def references(
        self, wanted: Mapping[str, tuple[str, int]], real: Mapping[str, Measured]
    ) -> dict[str, Observation]:
        """Measure reference images, each once, and return them by clip."""
        images = sorted({image for image in wanted.values() if image[0] in real})

        def measure(image: tuple[str, int]) -> Observation:
            clip, index = real[image[0]], image[1]
            content = ("reference", clip.seen.path.stem, str(index))
            if (found := self.store.find(*content)) is not None:
                return found
            frame, measurer = clip.seen[f"frame_{index}"], self._measurer()
            num_frames = self.definition.num_frames or clip.seen.details["num_frames"]
            parts, problems = measurer.see(np.repeat(frame[None], num_frames, axis=0))
            if "identity" in parts:
                parts["reference_identity"] = measurer.recognise(frame)
            return self.store.add(parts, problems, clip.seen.details, *content)

        measured = dict(self._map(measure, images, "measure reference images"))
        return {name: measured[image] for name, image in wanted.items() if name in real and image in measured}

    def conclude(
        self,
        videos: Mapping[str, Mapping[str, Measured]],
        real: Mapping[str, Measured],
        references: Mapping[str, Observation],
    ) -> Evaluation:
        """Score all systems, with floors derived from the first of `videos`."""
        first = next(iter(videos), "ours")
        ours = videos.get(first, {})
        if not ours:
            reasons = sorted({failure["reason"] for failure in self.failures})[:5]
            raise DicetalkError(f"Not one video of `{first}` could be evaluated: " + "; ".join(reasons))
        compared = {clip_id: references[clip_id] for clip_id in ours}
        own = {name: list(own_trials(name, measured, real, references)) for name, measured in videos.items()}
        derived = {
            name: list(make(ours, real, compared))
            for name in DERIVED
            if (make := SYSTEMS[name].make_trials) is not None
        }
        trials = {"real": derived.pop("real"), **own, **derived}
        rows, estimates = [], {}
        skipped = dict(self.definition.left_out)
        skipped |= {
            metric: self.missing[role]
            for metric, role in self.definition.networks.items()
            if role in self.missing
        }
        emotions = self.readers["emotion"].emotions if "emotion" in self.readers else ()
        for system, shown in trials.items():
            if not shown:
                skipped[system] = "no clip has the counterpart this system needs"
                continue
            system_rows = self._score(shown)
            rows += system_rows
            estimates[system], unmeasured = estimate_system(
                pd.DataFrame(system_rows), self.settings, self.definition, emotions
            )
            self._skip(skipped, system, unmeasured)
        for (system, metric), result in self._distances(trials):
            if isinstance(result, DicetalkError):
                self._skip(skipped, system, {metric: str(result)})
            else:
                estimates[system][metric] = result
        table = pd.DataFrame(rows)
        others = [name for name in videos if name != first]
        report = self._report(estimates, skipped)
        columns = {name: mean.column for name, mean in clip_means(self.definition).items() if mean.paired}
        by_identity = self.definition.interval_unit == "identity"
        draws = (by_identity, self.settings.seed, self.settings.bootstrap_samples)
        report["paired"] = paired_tests(table, first, others, columns, *draws)
        report["expression_strength_differences"] = strength_differences(table, *draws)
        return Evaluation(report, table)

    def _measure(self, source: Source, keep: Sequence[int], real: Source | None) -> Measured:
        content = [source.fingerprint(), str(list(keep)), real.fingerprint() if real else ""]
        seen = self.store.find(*content)
        clip = None
        if seen is None:
            clip = source.load()
            parts, problems = self._measurer().measure(clip, keep, real.load() if real else None)
            details = {
                "clip_id": clip.clip_id,
                "identity": clip.identity,
                "emotion": clip.emotion,
                "level": clip.level,
                "num_frames": len(clip.frames),
                "size_px": list(clip.frames.shape[2:0:-1]),
            }
            seen = self.store.add(parts, problems, details, *content)
        known = seen.details
        return Measured(known["clip_id"], known["identity"], known["emotion"], known["level"], seen)

    def _skip(self, skipped: dict[str, str], system: str, reasons: Mapping[str, str]) -> None:
        """Add reasons of one system, unless the metric is skipped for all of them."""
        skipped |= {f"{system}.{metric}": why for metric, why in reasons.items() if metric not in skipped}

    def _score(self, trials: Iterable[Trial]) -> list[dict[str, Any]]:
        rows = []
        for trial in trials:
            row, unmeasured = score_trial(trial, self.definition.metrics, self.settings)
            rows.append(row)
            if find_system(trial.system).same_videos:
                continue
            problems = trial.shown.problems
            metrics: dict[str, list[str]] = {}
            for metric, role in self.definition.networks.items():
                if reason := unmeasured.get(metric) or problems.get(role):
                    metrics.setdefault(reason, []).append(metric)
            for reason, names in metrics.items():
                self.fail(trial.system, trial.real.clip_id, reason, ", ".join(names))
        return rows

    def _distances(
        self, trials: Mapping[str, Sequence[Trial]]
    ) -> Iterator[tuple[tuple[str, str], Estimate | DicetalkError]]:
        networks = self.definition.networks
        distances = {
            row.name: row.value
            for row in self.definition.metrics
            if isinstance(row.value, SetDistance) and networks[row.name] in self.readers
        }

        def estimate(key: tuple[str, str]) -> Estimate | DicetalkError:
            system, metric = key
            try:
                pairs = set_pairs(trials[system], FEATURES[networks[metric]])
                return estimate_distance(pairs, distances[metric], self.definition)
            except DicetalkError as error:
                return error

        keys = [(system, metric) for system, own in trials.items() if own for metric in distances]
        # Wide features: one at a time, because each keeps the moments of its groups.
        threads = 1 if self.definition.frechet_groups else self.threads
        return self._map(estimate, keys, "Fréchet distances", threads)

    def _report(
        self, estimates: Mapping[str, Mapping[str, Estimate]], skipped: Mapping[str, str]
    ) -> dict[str, Any]:
        networks = {role: {"name": item.name, "sha256": item.sha256} for role, item in self.readers.items()}
        definition = self.definition
        return {
            "protocol": {
                "name": self.protocol.name,
                "sha256": self.protocol.sha256,
                **definition.model_dump(exclude={"networks", "left_out", "readers"}),
            },
            "networks": {
                metric: networks[role] for metric, role in definition.networks.items() if role in networks
            },
            "systems": {
                system: {metric: found[metric].as_json() for metric in definition.networks if metric in found}
                for system, found in estimates.items()
            },
            "skipped": dict(skipped),
            "failures": self.failures,
        }

    def _measurer(self) -> Measurer:
        if not hasattr(self._local, "measurer"):
            self._local.measurer = Measurer(self.definition, self.readers)
        return self._local.measurer

    def _map(
        self, function: Callable[[Any], Any], items: Sequence[Any], label: str, threads: int | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """Yield `(item, function(item))` in order, computed by `threads` or `self.threads` threads."""
        with ThreadPoolExecutor(
            threads or self.threads, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            try:
                yield from zip(items, track(pool.map(function, items), label, total=len(items)), strict=True)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # else it would finish all items first
                raise
