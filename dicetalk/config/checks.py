"""Parameters that are right one by one and wrong together, found before anything expensive begins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from dicetalk.config.params import Params

PROTOCOLS = Path(__file__).parents[1] / "evaluation/protocols"
# Speech features (50 tokens a second, two per frame), SyncNet's windows and every protocol count in these.
FPS, SAMPLE_RATE_HZ = 25.0, 16_000
PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]*")


def contradictions(params: Params) -> Iterator[str]:
    """Yield `key: what is wrong and what to change` for parameters that cannot go together."""
    yield from _corpora(params)
    yield from _data(params)
    yield from _training(params)
    yield from _generation(params)
    yield from _evaluation(params)


def _corpora(params: Params) -> Iterator[str]:
    if not params.index:
        yield "index: names no corpus; profiles/demo.yaml has examples"
    for name in params.index:
        if not PLAIN_NAME.fullmatch(name):
            yield (
                f"index.{name}: names files and folders, so it should be of lower-case letters, digits and "
                "_, and begin with a letter"
            )


def _data(params: Params) -> Iterator[str]:
    preprocess = params.preprocess
    if preprocess.fps != FPS:
        yield f"preprocess.fps: speech features and metrics are made for {FPS:g}, found {preprocess.fps:g}"
    if preprocess.sample_rate_hz != SAMPLE_RATE_HZ:
        yield f"preprocess.sample_rate_hz: speech features and metrics are made for {SAMPLE_RATE_HZ}"
    if preprocess.min_seconds > preprocess.max_seconds:
        yield f"preprocess.min_seconds: {preprocess.min_seconds:g} is above max_seconds, so no clip is kept"
    diffusion = params.train_diffusion
    window_seconds = (diffusion.frame_stride * (diffusion.num_frames - 1) + 1) / FPS
    if preprocess.max_seconds < window_seconds:
        yield (
            f"preprocess.max_seconds: no clip is as long as a training window of train_diffusion, "
            f"{window_seconds:.2f} s, found {preprocess.max_seconds:g}"
        )


def _training(params: Params) -> Iterator[str]:
    compute = params.compute
    for name in ("train_embedder", "learn_bank", "train_diffusion"):
        batch_size = getattr(params, name).training.batch_size
        processes = getattr(compute, name).num_processes
        if batch_size % processes:
            yield (
                f"{name}.training.batch_size: {batch_size}, the batch of all processes together, is no "
                f"multiple of compute.{name}.num_processes, {processes}"
            )
    if compute.evaluators.num_processes != 1:
        yield "compute.evaluators.num_processes: these small networks train in one process, set it to 1"
    if compute.train_diffusion.fully_sharded and compute.train_diffusion.num_processes == 1:
        yield "compute.train_diffusion.fully_sharded: divides weights among processes, of which there is one"
    for name, width, heads in (
        ("train_embedder.hidden_dim", params.train_embedder.hidden_dim, params.train_embedder.num_heads),
        ("learn_bank.dim", params.learn_bank.dim, params.learn_bank.num_heads),
    ):
        if width % heads:
            yield f"{name}: {width} is no multiple of num_heads, {heads}"


def _generation(params: Params) -> Iterator[str]:
    generate = params.generate
    if not generate.modes or len(set(generate.modes)) < len(generate.modes):
        yield f"generate.modes: should name one or more of P, V and A, each once, found {generate.modes}"
    if generate.sigma_min >= generate.sigma_max:
        yield f"generate.sigma_min: {generate.sigma_min:g} should be below sigma_max, {generate.sigma_max:g}"
    if generate.guidance_sigmas is not None:
        lowest, highest = generate.guidance_sigmas
        if not 0 <= lowest < highest:
            yield f"generate.guidance_sigmas: should be lowest and highest, found {lowest:g} and {highest:g}"
    window = params.train_diffusion.num_frames
    if generate.window_overlap >= window:
        yield f"generate.window_overlap: should be below {window}, train_diffusion.num_frames"


def _evaluation(params: Params) -> Iterator[str]:
    name, known = params.evaluate.protocol, sorted(path.stem for path in PROTOCOLS.glob("*.yaml"))
    if name not in known:
        yield f"evaluate.protocol: unknown, expected one of {', '.join(known)}, found {name!r}"
        return
    definition = yaml.safe_load((PROTOCOLS / f"{name}.yaml").read_text(encoding="utf-8"))
    needed, stride = definition["num_frames"] or definition["min_frames"], params.train_diffusion.frame_stride
    frames = params.generate.num_frames * stride
    if frames < needed:
        yield (
            f"generate.num_frames: {params.generate.num_frames} make {frames} frames at {FPS:g} fps; "
            f"protocol {name} measures {needed}, so set it to {-(-needed // stride)} or more"
        )
