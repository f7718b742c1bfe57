"""Typed parameters: every section of `params.yaml` but those of the data and of `compute`.

Every stage takes its own section of `load_params()` and passes the frozen object on. A comment on a field
says where its value comes from when the paper does not state one; `docs/paper-map.md` has the long form.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from dicetalk.config.base import Probability, Section
from dicetalk.config.compute import Compute
from dicetalk.config.data import Backbone, Encode, Preprocess, Synthesize, UncheckedIndex

Precision = Literal["auto", "no", "bf16", "fp16"]  # auto: bf16 where the processor computes it natively


class Training(Section):
    """The shared training loop; durations are in optimiser steps."""

    seed: int
    num_steps: PositiveInt
    batch_size: PositiveInt  # of all processes together
    lr: PositiveFloat
    weight_decay: float = Field(ge=0)
    warmup_steps: int = Field(ge=0)
    schedule: Literal["constant", "cosine"]
    grad_clip_norm: PositiveFloat
    grad_accumulation_steps: PositiveInt
    ema_decay: Probability = Field(lt=1)
    # Not fp16: its gradients overflow now and then by design, and one that is not finite ends a training
    mixed_precision: Literal["auto", "no", "bf16"]


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
    # Of the adversary; 0 also switches off the closed-form removal: nothing is done about identity then
    identity_weight: float = Field(ge=0)
    modality_dropout: Probability = Field(lt=1)
    modalities: Literal["both", "audio", "video"]  # the paper's table 5 compares them


class Priors(Section):
    """What conditions the video: the learned embedding, or the class label (paper's table 4: no prior)."""

    source: Literal["embedding", "label"]


class LearnBank(Section):
    """Vector-quantised emotion bank and correlation-aware attention (official `emo.py` for the structure)."""

    training: Training
    use_bank: bool  # false: the projected prior alone (paper's table 4: no emotion bank)
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

    audio: Probability
    image: Probability
    emotion: Probability
    all: Probability


class TrainDiffusion(Section):
    """Fine-tuning of the video backbone with audio and emotion adapters and the discrimination objective."""

    training: Training
    audio_projection: AudioProjection
    pose_guider_channels: list[PositiveInt]  # official: 16, 32, 96, 256; each after the first halves the mask
    num_frames: PositiveInt
    frame_stride: PositiveInt
    condition_dropout: ConditionDropout
    short_window_fraction: Probability  # of steps, with 2 frames of as many more clips
    emotional_fraction: Probability  # paper: emotion to regular data 1:1
    # Chance of a reference image from any clip of the identity; paper silent, see DiffusionBatches.draw
    other_clip_reference_fraction: Probability
    clip_prior_fraction: Probability  # rest: class-mean prior, as in mode P
    sigma_log_mean: float  # log-normal noise level of training; SVD report: 1.0 and 1.6 at 576x1024
    sigma_log_std: PositiveFloat
    mouth_weight: float = Field(ge=1)  # of the error in the mouth's latents: speech moves little else
    discrimination_weight: float = Field(ge=0)
    discrimination_max_sigma: PositiveFloat  # no emotion can be read from purer noise
    adapter_lr_scale: PositiveFloat  # new layers learn faster than the pretrained ones


class Evaluators(Section):
    """Networks that metrics need: in-domain ones trained on real training clips, or published weights."""

    source: Literal["in-domain", "published"]
    emotion: Training
    emotion_second: Training  # of another architecture, which also reads the strength of expressions
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
    # Mode P: emotion_scale is multiplied by that of the level, so that a higher level looks stronger
    level_factors: Annotated[list[PositiveFloat], Field(min_length=3, max_length=3)]
    # Lowest and highest guided noise level; null guides every step, as the official code does
    guidance_sigmas: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    window_overlap: int = Field(ge=0)
    ring_windows: bool  # official scheme with a window of padding; false needs none
    # Up to preprocess.fps; rife falls back to linear without its weights
    interpolation: Literal["rife", "linear"]
    batch_clips: PositiveInt
    mixed_precision: Precision
    modes: list[Literal["P", "V", "A"]]
    max_clips_per_mode: dict[Literal["P", "V", "A"], PositiveInt]


class Evaluate(Section):
    """Metrics over generated and real clips."""

    protocol: str
    bootstrap_samples: PositiveInt
    max_shift_frames: PositiveInt  # SyncNet: 15
    seed: int


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


class Ablate(Section):
    """What all runs of `python -m pipelines.ablate` share; the variants are in `pipelines/ablations`."""

    seeds: list[int] = Field(min_length=1)  # k adds 1000 * k to the seeds of training and generation
    overrides: dict[str, Any]  # dotted key of this file -> value, for every run: what makes them affordable


class Params(Section):
    """All of `params.yaml`."""

    profile: str
    synthesize: Synthesize | None
    index: dict[str, UncheckedIndex]  # by the name that each corpus has in paths
    preprocess: Preprocess
    backbone: Backbone
    encode: Encode
    train_embedder: TrainEmbedder
    priors: Priors
    learn_bank: LearnBank
    train_diffusion: TrainDiffusion
    evaluators: Evaluators
    generate: Generate
    evaluate: Evaluate
    report: Report
    compute: Compute
    tracking: Tracking
    retrain: Retrain
    ablate: Ablate

    @property
    def corpora(self) -> list[str]:
        """Names of the corpora in use, in their order."""
        return list(self.index)
