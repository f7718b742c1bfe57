"""Model folders to and from the four files of the official release."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_directory
from dicetalk.models.checkpoints import OFFICIAL_FILES, export_official, import_official

if TYPE_CHECKING:
    from dicetalk.models.pipeline import DiceTalkPipeline


def export_model(model: Path, output: Path) -> list[Path]:
    """Write the networks of a model folder under the official file and tensor names.

    Returns:
        The written files.
    """
    pipeline = _load(model)
    return export_official(output, {name: getattr(pipeline, name) for name in OFFICIAL_FILES})


def import_model(source: Path, model: Path, output: Path) -> None:
    """Write a copy of a model folder whose networks come from official files.

    Everything else stays that of `model`: autoencoder, image encoder, embedder, priors and settings.

    Args:
        source: folder with the four official files.
        model: a model folder of the same configuration.
        output: folder to write; must not exist.

    Raises:
        DicetalkError: when `output` exists, or a file is missing, unsafe or of another shape.
    """
    if output.exists():
        raise DicetalkError(f"{output} exists; choose a new folder with --out.")
    pipeline = _load(model)
    import_official(source, {name: getattr(pipeline, name) for name in OFFICIAL_FILES})
    with atomic_directory(output) as folder:
        shutil.copytree(model, folder, dirs_exist_ok=True)
        pipeline.save_pretrained(folder)


def _load(model: Path) -> DiceTalkPipeline:
    from dicetalk.models.pipeline import DiceTalkPipeline

    if not (model / "model_index.json").is_file():
        raise DicetalkError(f"{model} is not a model folder; train one with `dvc repro train_diffusion`.")
    return DiceTalkPipeline.from_pretrained(model)
