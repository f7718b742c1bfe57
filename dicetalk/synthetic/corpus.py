"""The demo corpora: procedural people in the layouts of MEAD and HDTF, so that the real loaders read them.

MEAD: `<ID>/video/front/<emotion>/level_<k>/<NNN>.mp4` and `<ID>/audio/<emotion>/level_<k>/<NNN>.m4a`.
HDTF: fifteen annotation files and the videos the user has downloaded, `videos/<SET>_<Name>.mp4`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from dicetalk.compute.workers import in_processes
from dicetalk.config import Synthesize, SyntheticMead
from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_directory
from dicetalk.labels import CLASSES, NEUTRAL
from dicetalk.progress import track
from dicetalk.synthetic.hdtf import plan_videos, write_annotations, write_hdtf_video
from dicetalk.synthetic.identity import sample_identity
from dicetalk.synthetic.performance import Performance, perform
from dicetalk.synthetic.recording import write_m4a, write_mp4
from dicetalk.synthetic.render import portrait_view
from dicetalk.synthetic.sentences import SENTENCES

MARKER = "SYNTHETIC.txt"
SENTENCES_PER_CLASS = 30  # MEAD's count for all emotions but neutral, which has 40
DEFECTS = ("face_leaves", "silent", "too_short", "truncated")
TOO_SHORT_SECONDS = 0.3


@dataclass(frozen=True)
class Person:
    """One MEAD actor to write: folder name, place in the cast, looks and the defects among the clips."""

    name: str
    number: int
    feminine: bool
    defects: tuple[str, ...]
    settings: SyntheticMead
    seed: int


def write_mead(root: Path, params: Synthesize, workers: int) -> dict[str, int]:
    """Write acted emotions in MEAD's layout and return how many people, clips and defects there are.

    The first half of the people are called M..., the others W.... Sentence numbers have gaps, as in MEAD.
    `num_defects` extra clips, numbered from 041, are unusable on purpose. In turn, the face leaves the
    picture, the sound is silent, the clip is too short, the file is cut off.

    Raises:
        DicetalkError: when `root` holds somebody else's videos, or for over 30 clips per class.
    """
    settings = params.mead
    count, num_defects = settings.num_identities, settings.num_defects
    if settings.clips_per_class > SENTENCES_PER_CLASS:
        raise DicetalkError(
            f"synthesize.mead.clips_per_class is {settings.clips_per_class}; at most {SENTENCES_PER_CLASS}."
        )
    rng = np.random.default_rng([params.seed, 0])
    numbers = np.sort(rng.choice(np.arange(1, max(100, count + 1)), count, replace=False))
    people = []
    for index, number in enumerate(numbers):
        feminine = index >= (count + 1) // 2
        defects = tuple(
            DEFECTS[k % len(DEFECTS)] for k in range(num_defects) if k * count // num_defects == index
        )
        people.append(
            Person(f"{'MW'[feminine]}{number:03d}", index, feminine, defects, settings, params.seed)
        )
    with _new_corpus(root) as folder:
        _in_parallel(_write_person, people, folder, workers, "synthesize mead")
    return {
        "identities": count,
        "clips": count * len(CLASSES) * settings.clips_per_class,
        "defects": num_defects,
    }


def write_hdtf(root: Path, params: Synthesize, workers: int) -> dict[str, int]:
    """Write landscape videos of calm talks with HDTF's annotation files and return how many there are.

    Each video has one or two annotated time ranges of `clip_seconds`, rounded up to whole seconds.

    Raises:
        DicetalkError: when `root` holds somebody else's videos.
    """
    videos = plan_videos(params.hdtf, params.seed)
    with _new_corpus(root) as folder:
        crops = _in_parallel(write_hdtf_video, videos, folder, workers, "synthesize hdtf")
        write_annotations(folder, list(zip(videos, crops, strict=True)))
    return {"videos": len(videos), "ranges": sum(map(len, crops))}


def _write_person(person: Person, root: Path) -> None:
    """Write all clips of one actor."""
    cv2.setNumThreads(1)
    identity = sample_identity(np.random.default_rng([person.seed, 1, person.number]), person.feminine)
    view = portrait_view(person.settings.size_px)

    def write(emotion: str, level: int, sentence: int, defect: str | None) -> None:
        label = CLASSES.index((emotion, level))
        rng = np.random.default_rng([person.seed, 2, person.number, label, sentence])
        seconds = TOO_SHORT_SECONDS if defect == "too_short" else person.settings.clip_seconds
        text = SENTENCES[(sentence - 1 + 7 * label) % len(SENTENCES)]
        take = perform(identity, emotion, level, text, seconds, person.settings.fps, rng)
        take = _spoiled(take, defect)
        stem = Path(emotion) / f"level_{level}" / f"{sentence:03d}"
        video = root / person.name / "video" / "front" / stem.with_suffix(".mp4")
        write_mp4(video, take.frames(view), person.settings.fps)
        write_m4a(root / person.name / "audio" / stem.with_suffix(".m4a"), take.samples)
        if defect == "truncated":
            video.write_bytes(video.read_bytes()[: video.stat().st_size // 3])

    for label, (emotion, level) in enumerate(CLASSES):
        rng = np.random.default_rng([person.seed, 3, person.number, label])
        known = SENTENCES_PER_CLASS + 10 * (emotion == NEUTRAL)
        for sentence in np.sort(rng.choice(known, person.settings.clips_per_class, replace=False)) + 1:
            write(emotion, level, int(sentence), None)
    for index, defect in enumerate(person.defects):
        emotion, level = CLASSES[(person.number + 5 * index) % len(CLASSES)]
        write(emotion, level, SENTENCES_PER_CLASS + 11 + index, defect)


def _spoiled(take: Performance, defect: str | None) -> Performance:
    if defect == "silent":
        return replace(take, samples=np.zeros_like(take.samples))
    if defect == "face_leaves":
        way = np.clip(np.linspace(-1.0, 4.0, len(take.states)), 0.0, None)
        moved = [
            replace(state, shift_x=float(offset)) for state, offset in zip(take.states, way, strict=True)
        ]
        return replace(take, states=moved)
    return take


@contextmanager
def _new_corpus(root: Path) -> Iterator[Path]:
    """Yield a folder that becomes `root` when everything is written; never replaces anybody's real data."""
    if not (root / MARKER).is_file() and next(root.rglob("*.mp4"), None) is not None:
        raise DicetalkError(
            f"{root} holds videos this program did not write, so it is not replaced. Move that folder away; "
            "where your own data lies is told by index.mead.root and index.hdtf.root in params.yaml."
        )
    with atomic_directory(root) as folder:
        (folder / MARKER).write_text("Procedural talking heads by dicetalk; nobody real is shown or heard.\n")
        yield folder


def _in_parallel(work: Callable, jobs: list, folder: Path, workers: int, label: str) -> list:
    """Run `work(job, folder)` for every job in `workers` processes; results come in the order of the jobs."""
    if workers == 1:
        return [work(job, folder) for job in track(jobs, label)]
    with in_processes(workers, work, jobs, [folder] * len(jobs)) as results:
        return list(track(results, label, total=len(jobs)))
