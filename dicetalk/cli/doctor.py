"""Can this machine run the active profile? One finding per requirement, each with what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from dicetalk.config import Params, load_params
from dicetalk.data.corpora.base import Corpus
from dicetalk.data.corpora.table import corpora_of
from dicetalk.errors import DicetalkError

MIN_FREE_GIB = {"smoke": 2, "demo": 5}
PAPER_FREE_GIB = 700  # MEAD and HDTF, their processed clips and latents; docs/data.md has the sum
DECODERS, ENCODERS = ("h264", "hevc", "aac"), ("libx264", "aac")


@dataclass(frozen=True)
class Finding:
    """One requirement: `ok`, `note` (works, with a limit) or `fail` (something will stop), and what to do."""

    name: str
    state: Literal["ok", "note", "fail"]
    found: str
    fix: str = ""


def examine(params_file: Path | None = None) -> list[Finding]:
    """Check Python, packages, processor, codecs, disk, parameters and the weights they name."""
    findings = [_python(), _torch(), _accelerator(), _codecs(), _speech(), _pipeline_tools()]
    try:
        params = load_params(params_file)
        corpora = corpora_of(params.index)
    except DicetalkError as error:
        fix = "correct the file, or: make profile P=demo"
        return [*findings, Finding("parameters", "fail", str(error), fix)]
    findings.append(Finding("parameters", "ok", f"profile {params.profile}"))
    return [*findings, _disk(params), *_weights(params), *_data(params, corpora)]


def _python() -> Finding:
    state: Literal["ok", "fail"] = "ok" if sys.version_info >= (3, 11) else "fail"
    fix = "" if state == "ok" else "install Python 3.11 or newer"
    return Finding("python", state, platform.python_version(), fix)


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("torch", "fail", f"does not import: {error}", "make install")
    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} processors"
    return Finding("torch", "ok", f"{torch.__version__}, {threads}")


def _accelerator() -> Finding:
    if find_spec("torch") is None:
        return Finding("accelerator", "note", "unknown without torch")
    import torch

    if not torch.cuda.is_available():
        fix = "fine for smoke and demo; the paper profile needs a CUDA GPU"
        return Finding("accelerator", "note", "none", fix)
    cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    found = ", ".join(f"{card.name} {card.total_memory / 2**30:.0f} GiB" for card in cards)
    return Finding("accelerator", "ok", found)


def _codecs() -> Finding:
    try:
        import av
    except (ImportError, OSError) as error:
        return Finding("codecs", "fail", f"PyAV does not import: {error}", "make install")
    wanted = [(name, "r") for name in DECODERS] + [(name, "w") for name in ENCODERS]
    missing = [f"{name} ({mode})" for name, mode in wanted if not _has_codec(av.Codec, name, mode)]
    if missing:
        return Finding("codecs", "fail", "missing: " + ", ".join(missing), "pip install --force-reinstall av")
    return Finding("codecs", "ok", f"PyAV {av.__version__}: H.264, HEVC, AAC; no ffmpeg program needed")


def _has_codec(codec: Any, name: str, mode: str) -> bool:
    try:
        codec(name, mode)
    except ValueError:  # av.codec.UnknownCodecError
        return False
    return True


def _speech() -> Finding:
    if find_spec("espeakng_loader") is None:
        return Finding("speech synthesis", "fail", "espeakng-loader is not installed", "make install")
    return Finding("speech synthesis", "ok", f"espeakng-loader {metadata.version('espeakng-loader')}")


def _pipeline_tools() -> Finding:
    tools = {name: find_spec(name) is not None for name in ("dvc", "mlflow", "prefect")}
    missing = [name for name, present in tools.items() if not present]
    if missing:
        fix = "pip install 'dicetalk[pipeline]'"
        return Finding("pipeline tools", "note", f"missing: {', '.join(missing)}", fix)
    return Finding("pipeline tools", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in tools))


def _disk(params: Params) -> Finding:
    free_gib = shutil.disk_usage(Path.cwd()).free / 2**30
    needed_gib = MIN_FREE_GIB.get(params.profile, PAPER_FREE_GIB)
    found = f"{free_gib:.0f} GiB free here, profile {params.profile} wants about {needed_gib}"
    if free_gib >= needed_gib:
        return Finding("disk", "ok", found)
    return Finding("disk", "fail", found, "free space, or `dvc cache dir` and `data/` on another disk")


def _weights(params: Params) -> list[Finding]:
    from dicetalk import weights
    from dicetalk.evaluation.protocol import load_protocol

    names = [params.backbone.weights, "blazeface-short-range", "facemesh"]
    if params.preprocess.landmarks == "face_alignment":
        names.append("fan-2d")
    if params.encode.speech.backend == "whisper":
        names.append("whisper-tiny")
    readers = load_protocol(params.evaluate.protocol).definition.readers.values()
    names += sorted({item.network for item in readers} & set(weights.registry()) - set(names))
    findings = []
    for status in weights.verify(names):
        name = f"weights {status.weights.name}"
        if status.path is None:
            findings.append(
                Finding(
                    name,
                    "note",
                    "not here yet; the stage that needs them fetches them",
                    f"dicetalk weights fetch {status.weights.name}",
                )
            )
        elif status.verified:
            findings.append(Finding(name, "ok", f"verified, {status.path}"))
        else:
            findings.append(
                Finding(
                    name,
                    "note",
                    f"present, not (fully) verifiable: {status.path}",
                    f"dicetalk weights verify {status.weights.name}",
                )
            )
    return findings


def _data(params: Params, corpora: list[Corpus[Any]]) -> list[Finding]:
    if params.synthesize is not None:
        return [Finding("data", "ok", "written by the synthesize stage")]
    findings = []
    for corpus in corpora:
        name, root = f"data {corpus.name.upper()}", corpus.settings.root
        if Path(root).is_dir():
            findings.append(Finding(name, "ok", root))
        else:
            fix = (
                f"put it there or change index.{corpus.name}.root; layout: docs/data.md; "
                f"source: {corpus.source}; terms: {corpus.licence}"
            )
            findings.append(Finding(name, "fail", f"{root} does not exist", fix))
    return findings
