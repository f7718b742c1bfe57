"""How results are computed, as opposed to what they are: no stage depends on anything here.

A change re-runs nothing and an interrupted run goes on with it. What another number of threads or processes
changes is rounding, and the cadence of logs and validations decides how many points a curve has.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from dicetalk.config.base import Section


class SynthesizeCompute(Section):
    """Drawing of the demo corpora."""

    workers: PositiveInt


class PreprocessCompute(Section):
    """Where clips are preprocessed."""

    scheduler: str = Field(pattern=r"^(local|(tcp|tls)://.+)$")  # processes here, or Dask
    workers: PositiveInt  # processes of `local`
    clip_timeout_seconds: PositiveFloat  # a clip that takes longer is given up, so that none stops the rest


class EncodeCompute(Section):
    """Encoding of clips."""

    threads: PositiveInt


class TrainingCompute(Section):
    """The training loop; cadences are in optimiser steps."""

    # The stage starts so many: one per GPU, or several on a CPU. See docs/operations.md for other launchers.
    num_processes: PositiveInt
    threads: PositiveInt  # of each process
    log_every_steps: PositiveInt
    validate_every_steps: PositiveInt
    checkpoint_every_steps: PositiveInt
    keep_every_steps: int = Field(ge=0)  # these checkpoints stay besides the last two; 0: no others


class DiffusionCompute(TrainingCompute):
    """The diffusion training."""

    gradient_checkpointing: bool  # compute activations again in the backward pass: less memory, more time
    fully_sharded: bool  # FSDP: for GPUs that cannot hold weights, gradients, moments and average
    sample_clips: int = Field(ge=0)  # short videos at each validation, to look at; 0: none


class GenerateCompute(Section):
    """Generation of the test split."""

    workers: PositiveInt  # processes with a model of their own; 1 on a GPU
    threads: PositiveInt  # of each


class EvaluateCompute(Section):
    """Measuring of clips."""

    threads: PositiveInt


class Compute(Section):
    """Section `compute`, by stage."""

    # What an unfinished run does whose code has changed: stop and say so, go on all the same, or begin again.
    resume: Literal["stop", "accept-code-change", "start-over"]
    synthesize: SynthesizeCompute
    preprocess: PreprocessCompute
    encode: EncodeCompute
    train_embedder: TrainingCompute
    learn_bank: TrainingCompute
    train_diffusion: DiffusionCompute
    evaluators: TrainingCompute
    generate: GenerateCompute
    evaluate: EvaluateCompute
