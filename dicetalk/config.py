"""Typed parameters: `params.yaml` is checked whole, and refused with the path of each wrong key.

Every stage takes its own section of `load_params()` and passes the frozen object on. A comment on a field
says where its value comes from when the paper does not state one; `docs/paper-map.md` has the long form.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from dicetalk.config_errors import explain
from dicetalk.errors import DicetalkError

PARAMS_FILE = Path("params.yaml")
Probability = float
Schema = TypeVar("Schema", bound=BaseModel)


class Section(BaseModel):
    """A group of parameters: immutable, unknown keys and silent type changes (`"3"` for `3`) refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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
    workers: PositiveInt
    mead: SyntheticMead
    hdtf: SyntheticHdtf


class MeadIndex(Section):
    """Which part of MEAD is used and how it is split."""

    root: str
    views: list[str]
    test_identities: list[str] | PositiveInt  # names, or how many to hold out


class HdtfIndex(Section):
    """Which part of HDTF is used and how it is split."""

    root: str
    sets: list[Literal["RD", "WDA", "WRA"]]
    test_identities: list[str] | PositiveInt
    piece_seconds: (
        PositiveFloat  # annotated ranges last minutes; they are cut into equal pieces of at most this
    )


class Index(Section):
    """Where raw data lies and which identities are held out."""

    mead: MeadIndex
    hdtf: HdtfIndex


class Preprocess(Section):
    """From raw clips to aligned face crops with sound; see `docs/data.md` for every rule."""

    workers: PositiveInt
    fps: PositiveFloat
    sample_rate_hz: PositiveInt
    size_px: PositiveInt
    crop_margin: float = Field(ge=0)  # face box grown by this fraction on each side; official code: 0.5
    mask_area: PositiveFloat  # face box scaled by this for the mask; official code: 1.1
    min_seconds: PositiveFloat
    max_seconds: PositiveFloat
    min_face_score: Probability = Field(ge=0, le=1)
    min_face_px: PositiveInt
    max_gap_frames: int = Field(ge=0)
    redetect_every_frames: PositiveInt
    min_loudness_db: float | None  # RMS relative to full scale; null keeps silent clips
    clips_per_shard: PositiveInt


class Backbone(Section):
    """The pretrained image-to-video model that training starts from: an entry of the weights registry."""

    weights: str


class Speech(Section):
    """Speech features at 50 tokens a second."""

    backend: Literal["logmel", "whisper"]
    num_mels: PositiveInt  # logmel only; whisper has its own 80


class Encode(Section):
    """What is computed once per clip before training."""

    speech: Speech
    image_embedding_stride: PositiveInt  # every n-th frame can serve as the reference image
    batch_frames: PositiveInt
    threads: PositiveInt


class Training(Section):
    """The shared training loop; durations are in optimiser steps."""

    seed: int
    num_steps: PositiveInt
    batch_size: PositiveInt
    lr: PositiveFloat
    weight_decay: float = Field(ge=0)
    warmup_steps: int = Field(ge=0)
    schedule: Literal["constant", "cosine"]
    grad_clip_norm: PositiveFloat
    grad_accumulation_steps: PositiveInt
    ema_decay: Probability = Field(ge=0, lt=1)
    mixed_precision: Literal["no", "bf16", "fp16"]
    gradient_checkpointing: bool
    log_every_steps: PositiveInt
    validate_every_steps: PositiveInt
    checkpoint_every_steps: PositiveInt
    threads: PositiveInt


class TrainEmbedder(Section):
    """Gaussian, identity-agnostic emotion embedding of audio and video (paper); sizes are our decision."""

    training: Training
    embedding_dim: PositiveInt  # 256 in the released priors
    hidden_dim: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    clip_frames: PositiveInt
    temperature: PositiveFloat
    kl_weight: float = Field(ge=0)
    identity_weight: float = Field(ge=0)
    modality_dropout: Probability = Field(ge=0, lt=1)


class LearnBank(Section):
    """Vector-quantised emotion bank and correlation-aware attention (official `emo.py` for the structure)."""

    training: Training
    dim: PositiveInt
    num_codes: PositiveInt
    num_tokens: PositiveInt
    num_heads: PositiveInt
    vq_weight: float = Field(ge=0)
    classification_weight: float = Field(ge=0)


class AudioProjection(Section):
    """Speech window to audio tokens."""

    window_tokens: PositiveInt  # 10 tokens = 0.2 s
    hidden_dim: PositiveInt
    num_tokens: PositiveInt


class ConditionDropout(Section):
    """Chance of dropping a condition in training; the paper states 5 % each."""

    audio: Probability = Field(ge=0, le=1)
    image: Probability = Field(ge=0, le=1)
    emotion: Probability = Field(ge=0, le=1)
    all: Probability = Field(ge=0, le=1)


class TrainDiffusion(Section):
    """Fine-tuning of the video backbone with audio and emotion adapters and the discrimination objective."""

    training: Training
    audio_projection: AudioProjection
    pose_guider_channels: list[PositiveInt]  # official: 16, 32, 96, 256; each after the first halves the mask
    num_frames: PositiveInt
    frame_stride: PositiveInt
    condition_dropout: ConditionDropout
    emotional_fraction: Probability = Field(ge=0, le=1)  # paper: emotion to regular data 1:1
    # Chance of a reference image from any clip of the identity; paper silent, see DiffusionBatches.draw
    other_clip_reference_fraction: Probability = Field(ge=0, le=1)
    clip_prior_fraction: Probability = Field(ge=0, le=1)  # rest: class-mean prior, as in mode P
    sigma_log_mean: float  # log-normal noise level of training; SVD report: 1.0 and 1.6 at 576x1024
    sigma_log_std: PositiveFloat
    discrimination_weight: float = Field(ge=0)
    discrimination_max_sigma: PositiveFloat  # no emotion can be read from purer noise
    adapter_lr_scale: PositiveFloat  # new layers learn faster than the pretrained ones
    # `copy` of the backbone's cross-attention as in the release, or `zero` values, so that training starts
    # undisturbed.
    adapter_start: Literal["copy", "zero"]


class Evaluators(Section):
    """Networks that metrics need: in-domain ones trained on real training clips, or published weights."""

    source: Literal["in-domain", "published"]
    emotion: Training
    identity: Training
    sync: Training


class Generate(Section):
    """Videos of the test split."""

    seed: int
    num_frames: PositiveInt  # at the model's frame rate, preprocess.fps / train_diffusion.frame_stride
    num_inference_steps: PositiveInt
    sigma_min: PositiveFloat
    sigma_max: PositiveFloat
    identity_scale: float
    audio_scale: float
    emotion_scale: float
    window_overlap: int = Field(ge=0)
    ring_windows: bool  # official scheme with a window of padding; false needs none
    interpolation: Literal[
        "rife", "linear"
    ]  # up to preprocess.fps; rife falls back to linear without its weights
    batch_clips: PositiveInt
    modes: list[Literal["P", "V", "A"]]
    max_clips_per_mode: dict[Literal["P", "V", "A"], PositiveInt]
    threads: PositiveInt


class Evaluate(Section):
    """Metrics over generated and real clips."""

    protocol: str
    bootstrap_samples: PositiveInt
    max_shift_frames: PositiveInt  # SyncNet: 15
    seed: int
    threads: PositiveInt


class Report(Section):
    """The page people read."""

    title: str
    grid_identities: PositiveInt
    grid_level: PositiveInt


class Tracking(Section):
    """MLflow; `null` switches tracking off."""

    uri: str | None
    experiment: str
    registered_model: str


class Retrain(Section):
    """The scheduled retraining flow."""

    cron: str
    metric: str  # system.metric of metrics/evaluate.json that decides about the champion
    higher_is_better: bool
    tolerance: float = Field(ge=0)  # a challenger this much worse still counts as not worse


class PretrainClips(Section):
    """Procedural clips of endless identities that the demo backbone is pretrained on."""

    seed: int
    workers: PositiveInt
    num_clips: PositiveInt
    num_frames: PositiveInt
    num_validation: PositiveInt  # clips never trained on
    fps: PositiveFloat
    size_px: PositiveInt
    crop_margin: float = Field(ge=0)


class PretrainAutoencoder(Section):
    """The patch autoencoder; see `dicetalk/training/autoencoder.py`."""

    training: Training
    latent_channels: PositiveInt
    latent_noise: float = Field(ge=0)
    edge_weight: float = Field(ge=0)


class PretrainUnet(Section):
    """The image-to-video UNet; see `dicetalk/training/backbone.py`."""

    training: Training
    block_out_channels: list[PositiveInt]
    attention_heads: list[PositiveInt]
    cross_attention_dim: PositiveInt
    num_frames: PositiveInt
    sigma_log_mean: float
    sigma_log_std: PositiveFloat


class PretrainParams(Section):
    """All of `pretrained/demo-backbone/params.yaml`."""

    clips: PretrainClips
    autoencoder: PretrainAutoencoder
    unet: PretrainUnet


class Params(Section):
    """All of `params.yaml`."""

    profile: str
    synthesize: Synthesize | None
    index: Index
    preprocess: Preprocess
    backbone: Backbone
    encode: Encode
    train_embedder: TrainEmbedder
    learn_bank: LearnBank
    train_diffusion: TrainDiffusion
    evaluators: Evaluators
    generate: Generate
    evaluate: Evaluate
    report: Report
    tracking: Tracking
    retrain: Retrain


def load_params(path: Path | None = None) -> Params:
    """Read and validate a parameter file.

    Raises:
        DicetalkError: naming the path of each unknown, missing or mistyped key, and the nearest valid name.
    """
    path = PARAMS_FILE if path is None else Path(path)
    return parse_params(_read_yaml(path), str(path))


def load_pretrain_params(path: Path) -> PretrainParams:
    """Read and validate the parameters of the demo backbone's recipe; raises as `load_params`."""
    return parse_params(_read_yaml(Path(path)), str(path), PretrainParams)


def parse_params(values: dict[str, Any], where: str, schema: type[Schema] = Params) -> Schema:  # type: ignore[assignment]
    """Validate a nested mapping of parameters; `where` names its origin in errors."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        lines = [f"{where} has wrong parameters:", *explain(error, schema)]
        raise DicetalkError("\n  ".join(lines)) from None


def config_hash(*sections: Any) -> str:
    """Return 12 hex digits naming the resolved parameters, e.g. for `runs/<stage>-<hash>/`."""
    values = [item.model_dump(mode="json") if isinstance(item, BaseModel) else item for item in sections]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _read_yaml(path: Path) -> dict[str, Any]:
    # ruamel reads YAML 1.2 as DVC does: there `1e-4` is a number, which PyYAML takes for a string.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.is_file():
        raise DicetalkError(f"{path} does not exist; run `make profile P=demo` or pass another file.")
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise DicetalkError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise DicetalkError(f"{path} must hold sections with parameters, found {type(values).__name__}.")
    return values
