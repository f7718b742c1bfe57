"""Typed parameters of the data: corpora, indices, preprocessing, encoding; `dicetalk.config` has the rest."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt

from dicetalk.config.base import Probability, Section


class SyntheticMead(Section):
    """The demo corpus in MEAD's layout."""

    num_identities: PositiveInt
    clips_per_class: PositiveInt
    clip_seconds: PositiveFloat
    size_px: PositiveInt
    fps: PositiveFloat
    num_defects: int = Field(ge=0)  # clips made unusable on purpose, so that rejection is exercised


class SyntheticHdtf(Section):
    """The demo corpus in HDTF's layout."""

    num_videos: PositiveInt
    clip_seconds: PositiveFloat
    height_px: PositiveInt
    fps: PositiveFloat


class Synthesize(Section):
    """Procedural raw corpora; `null` in `params.yaml` means the user's own data lies in `index.*.root`."""

    seed: int
    mead: SyntheticMead
    hdtf: SyntheticHdtf


class CorpusIndex(Section):
    """What is said about every corpus; kinds add keys of their own, see `dicetalk.data.corpora`."""

    kind: str
    root: str
    # Names, how many to hold out, or the name of a split that the kind knows, e.g. `eat` of MEAD
    test_identities: list[str] | PositiveInt | str


class UncheckedIndex(CorpusIndex):
    """A corpus as `params.yaml` has it, before its kind has looked at the keys that only the kind knows."""

    model_config = ConfigDict(extra="allow")


class Preprocess(Section):
    """From raw clips to aligned face crops with sound; see `docs/data.md` for every rule."""

    fps: PositiveFloat
    sample_rate_hz: PositiveInt
    size_px: PositiveInt
    landmarks: Literal["facemesh", "face_alignment"]  # the latter: FAN, 68 points; slow without a GPU
    crop_source: Literal["face", "published"]  # `published`: HDTF's own windows, where it has one
    crop_margin: float = Field(ge=0)  # face box grown by this fraction on each side; official code: 0.5
    mask_area: PositiveFloat  # face box scaled by this for the mask; official code: 1.1
    min_seconds: PositiveFloat
    max_seconds: PositiveFloat
    min_face_score: Probability
    min_face_px: PositiveInt
    max_gap_frames: int = Field(ge=0)
    redetect_every_frames: PositiveInt
    rival_size: Probability = Field(gt=0)  # a face this large, beside the followed one, is a second speaker
    cut_brightness: float = Field(ge=0)  # a larger mean change between two frames, of 255, is a cut
    cut_overlap: Probability  # a smaller overlap of the face's boxes in two frames is a cut
    max_outside: float = Field(ge=0)  # part of the face's size that may stick out of the crop
    min_complete: Probability  # part of the announced duration that must be decodable
    # Where sound ends first, at most this much silence is added; picture beyond it is cut.
    max_silent_tail_seconds: float = Field(ge=0)
    # Of x264. At equal quality a faster one makes larger shards; docs/performance-log.md has both.
    video_preset: Literal["ultrafast", "superfast", "veryfast", "medium"]
    min_loudness_db: float | None  # RMS relative to full scale; null keeps silent clips
    clips_per_shard: PositiveInt


class Backbone(Section):
    """The pretrained image-to-video model that training starts from: an entry of the weights registry."""

    weights: str


class Speech(Section):
    """Speech features at 50 tokens a second."""

    # paper: whisper; the demo has a small network that recognises phonemes, and a plain log-mel spectrogram
    backend: Literal["logmel", "phonemes", "whisper"]
    num_mels: PositiveInt  # logmel only; networks have their own


class Encode(Section):
    """What is computed once per clip before training."""

    speech: Speech
    image_embedding_stride: PositiveInt  # every n-th frame can serve as the reference image
    batch_frames: PositiveInt
