"""The model folder `models/dicetalk/`: trained networks and all else that generating needs.

Apart from the training, so that a new default of sampling or a wider margin around faces packs again what is
trained, and trains nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from dicetalk.config import Params
from dicetalk.data.speech import SPEECH_ENCODER
from dicetalk.files import atomic_directory, write_json

SETTINGS_FILE, PRIORS_FILE = "dicetalk.json", "priors.safetensors"


def package_model(params: Params, models: Path, output: Path) -> None:
    """Copy the parts of a model into one folder.

    Args:
        params: all parameters.
        models: folder of `diffusion`, `embedder`, `backbone` and the priors.
        output: the model folder; replaced as a whole.
    """
    with atomic_directory(output) as folder:
        shutil.copytree(models / "diffusion", folder, dirs_exist_ok=True)
        shutil.copytree(models / "embedder", folder / "embedder")
        shutil.copyfile(models / PRIORS_FILE, folder / PRIORS_FILE)
        if (models / "backbone" / SPEECH_ENCODER).is_dir():
            shutil.copytree(models / "backbone" / SPEECH_ENCODER, folder / SPEECH_ENCODER)
        write_json(folder / SETTINGS_FILE, model_settings(params))


def model_settings(params: Params) -> dict[str, Any]:
    """Return what somebody who has only the model folder must know to prepare inputs and to generate."""
    return {
        "speech": params.encode.speech.model_dump(),
        "window_tokens": params.train_diffusion.audio_projection.window_tokens,
        "frame_stride": params.train_diffusion.frame_stride,
        "fps": params.preprocess.fps,
        "size_px": params.preprocess.size_px,
        "crop_margin": params.preprocess.crop_margin,
        "mask_area": params.preprocess.mask_area,
        "min_face_score": params.preprocess.min_face_score,
        "generate": params.generate.model_dump(),  # defaults of `dicetalk generate`
    }
