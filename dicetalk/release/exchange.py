"""Model folders to and from the files of the official release.

Networks go through one at a time and mapped from disk, so neither direction needs more memory than its
largest network.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from diffusers import ModelMixin
from transformers import CLIPImageProcessor, CLIPVisionConfig

from dicetalk.config import Params
from dicetalk.data.shape import planned_shape
from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_directory, write_json
from dicetalk.labels import EMOTIONS
from dicetalk.models.backbones.denoisers.table import denoiser_class, denoiser_of
from dicetalk.models.backbones.files.components import component_class, component_config
from dicetalk.models.build import build_conditioners
from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pipeline import DiceTalkPipeline
from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.projection import AudioProjection
from dicetalk.models.state_files import check_fits, check_values, read_state_dict
from dicetalk.models.unet import DiceTalkUNet
from dicetalk.release.official_files import OFFICIAL_FILES, export_official
from dicetalk.release.package import SETTINGS_FILE, model_settings
from dicetalk.release.prior_files import read_priors, write_prior
from dicetalk.training.priors import PRIORS_FILE, load_priors, save_priors

NETWORKS: dict[str, type[ModelMixin]] = {
    "unet": DiceTalkUNet,
    "audio_projection": AudioProjection,
    "emotion_model": EmotionModel,
    "pose_guider": PoseGuider,
}
MAX_SHARD_SIZE = "1GB"  # writing a shard copies it


def export_model(model: Path, output: Path) -> list[Path]:
    """Write a model folder under the official file and tensor names.

    The networks become `unet.pth` and so on; the class means of mode P, over all levels, `<emotion>.npy`.

    Returns:
        The written files.

    Raises:
        DicetalkError: when `model` is not a model folder.
    """
    _check_folder(model)
    paths = []
    for name, module in _empty_networks(model).items():
        state: dict[str, torch.Tensor] = {}
        for shard in sorted((model / name).glob("*.safetensors")):
            state |= safetensors.torch.load_file(shard)
        check_fits(module, state, str(model / name))
        module.load_state_dict(state, assign=True)
        paths += export_official(output, {name: module})
        module.to("meta")
    priors = load_priors(model / PRIORS_FILE) if (model / PRIORS_FILE).is_file() else {}
    for emotion in EMOTIONS:
        if f"P/{emotion}" in priors:
            paths.append(output / f"{emotion}.npy")
            write_prior(paths[-1], priors[f"P/{emotion}"])
    return paths


def import_model(source: Path, model: Path, output: Path, priors: Path | None = None) -> None:
    """Write a copy of a model folder whose networks come from official files.

    Everything else stays that of `model`: autoencoder, image encoder, embedder, priors and settings.

    Args:
        source: folder with the four official files.
        model: a model folder of the same configuration.
        output: folder to write; must not exist.
        priors: folder with `<emotion>.npy` that replace those of `model`.

    Raises:
        DicetalkError: when `output` exists, or a file is missing, unsafe or of another shape.
    """
    _check_new(output)
    _check_folder(model)
    modules = _empty_networks(model)
    vectors = None if priors is None else _named_priors(priors)
    with atomic_directory(output) as folder:
        shutil.copytree(model, folder, dirs_exist_ok=True, ignore=_only_top(model, {*NETWORKS}))
        _write_networks(source, modules, folder)
        if vectors is not None:
            save_priors(vectors, folder / PRIORS_FILE)


def import_release(
    source: Path, backbone: Path, output: Path, params: Params, priors: Path | None = None
) -> None:
    """Write a complete model folder from the official files and Stable Video Diffusion.

    The release has no emotion embedder, so modes V and A are not available in the result.

    Args:
        source: folder with the four official files.
        backbone: SVD in diffusers' directory layout.
        output: folder to write; must not exist.
        params: the parameters the files belong to, `profiles/paper.yaml` for the published ones.
        priors: folder with `<emotion>.npy`; without it the folder needs its priors from elsewhere.

    Raises:
        DicetalkError: when `output` exists, or a file is missing, unsafe or of another shape.
    """
    _check_new(output)
    vectors = None if priors is None else _named_priors(priors)
    with torch.device("meta"):
        modules = _release_modules(backbone, params)
        parts = {name: _backbone_part(backbone, name) for name in ("vae", "image_encoder")}
    space = 2 ** (len(params.train_diffusion.pose_guider_channels) - 1)
    denoiser = denoiser_of(modules["unet"])
    has_extractor = (backbone / "feature_extractor").is_dir()
    pipeline = DiceTalkPipeline(
        **modules,
        **parts,
        scheduler=denoiser.noise.scheduler(params.generate.sigma_min, params.generate.sigma_max),
        feature_extractor=CLIPImageProcessor.from_pretrained(backbone / "feature_extractor")
        if has_extractor
        else None,
        image_size=params.preprocess.size_px,
        size_multiple=denoiser.geometry(space).size_multiple,
    )
    with atomic_directory(output) as folder:
        pipeline.save_config(folder)
        pipeline.scheduler.save_pretrained(folder / "scheduler")
        if has_extractor:
            pipeline.feature_extractor.save_pretrained(folder / "feature_extractor")
        for name in parts:
            _copy_part(backbone / name, folder / name)
        _write_networks(source, modules, folder)
        write_json(folder / SETTINGS_FILE, model_settings(params))
        if vectors is not None:
            save_priors(vectors, folder / PRIORS_FILE)


def _write_networks(source: Path, modules: Mapping[str, Any], folder: Path) -> None:
    """Check and write each network, given on the meta device with its configuration only."""
    paths = {name: Path(source) / OFFICIAL_FILES[name] for name in modules}
    for name, path in paths.items():
        check_fits(modules[name], read_state_dict(path), str(path))  # all of them before the first is written
    for name, path in paths.items():
        state = read_state_dict(path)
        check_values(state, str(path))
        modules[name].load_state_dict(dict(state), assign=True)
        modules[name].save_pretrained(folder / name, max_shard_size=MAX_SHARD_SIZE)
        modules[name].to("meta")


def _empty_networks(model: Path) -> dict[str, Any]:
    """Return the networks of a model folder without their weights, on the meta device."""
    with torch.device("meta"):
        return {name: cls.from_config(cls.load_config(model / name)) for name, cls in NETWORKS.items()}


def _release_modules(backbone: Path, params: Params) -> dict[str, Any]:
    denoiser = denoiser_class(backbone).empty(component_config(backbone, "unet"))
    conditioners = build_conditioners(
        params.train_diffusion,
        params.learn_bank,
        params.train_embedder.embedding_dim,
        planned_shape(params.encode.speech, backbone),
        denoiser.widths,
    )
    return {"unet": denoiser.network, **{name: conditioners[name] for name in NETWORKS if name != "unet"}}


def _backbone_part(backbone: Path, name: str) -> Any:
    """Return a network of the backbone without its weights."""
    cls = component_class(backbone, name)
    if name == "image_encoder":
        return cls(CLIPVisionConfig.from_pretrained(backbone / name))
    return cls.from_config(component_config(backbone, name))


def _copy_part(source: Path, target: Path) -> None:
    """Copy configuration and safetensors of a network, of the float16 variant where there is one."""
    variants = sorted(source.glob("*.fp16.safetensors"))
    files = variants or sorted(source.glob("*.safetensors"))
    if not files:
        raise DicetalkError(f"{source} has no safetensors file; fetch the backbone again.")
    target.mkdir()
    shutil.copyfile(source / "config.json", target / "config.json")
    for path in files:
        shutil.copyfile(path, target / path.name.replace(".fp16.", "."))


def _named_priors(folder: Path) -> dict[str, Any]:
    """Read the release's priors under our names; it has one per emotion, without levels."""
    return {f"P/{emotion}": vector for emotion, vector in read_priors(folder).items()}


def _only_top(root: Path, names: set[str]) -> Any:
    """Return a filter for `shutil.copytree` that leaves out entries of the top folder."""
    return lambda folder, entries: names if Path(folder) == Path(root) else ()


def _check_new(output: Path) -> None:
    if output.exists():
        raise DicetalkError(f"{output} exists; choose a new folder with --out.")


def _check_folder(model: Path) -> None:
    if not (model / "model_index.json").is_file():
        raise DicetalkError(f"{model} is not a model folder; train one with `dvc repro train_diffusion`.")
