"""Encodes each clip once, so that training reads features instead of computing them anew for every batch.

A shard `data/encoded/<set>/shard-000000.safetensors` holds, for each of its clips:

| tensor | type and shape | what |
|---|---|---|
| `<clip_id>/latents` | fp16 `(frames, channels, height, width)` | mode of the VAE times its scaling factor |
| `<clip_id>/image_embeddings` | fp16 `(ceil(frames / stride), dim)` | of frames 0, stride, 2 stride, ... |
| `<clip_id>/speech` | fp16 `(tokens, layers, channels)` | 50 tokens a second |
| `<clip_id>/expression` | fp32 `(frames, 136)` | see `dicetalk.data.expression` |

`clips.parquet` beside the shards has the rows of `kept.parquet` and the name of each clip's `shard`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.numpy import save_file

from dicetalk.compute.precision import compute_device
from dicetalk.config import Encode
from dicetalk.data.expression import expression_features
from dicetalk.data.speech import SpeechEncoder, load_speech_encoder
from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_directory, is_as_noted, noted_path
from dicetalk.models.backbones.files.components import load_codec, load_component
from dicetalk.models.preprocessing import clip_pixels
from dicetalk.progress import track

if TYPE_CHECKING:
    from dicetalk.models.backbones.files.base import Codec


@dataclass
class ClipEncoder:
    """Encodes single clips with the frozen networks.

    Attributes:
        codec: autoencoder of the backbone.
        image_encoder: CLIP vision model of the backbone.
        speech: speech encoder.
        image_embedding_stride: every n-th frame gets an image embedding.
        batch_frames: frames per forward pass.
    """

    codec: Codec
    image_encoder: Any
    speech: SpeechEncoder
    image_embedding_stride: int
    batch_frames: int

    @torch.inference_mode()
    def encode(self, frames: np.ndarray, samples: np.ndarray, landmarks: np.ndarray) -> dict[str, np.ndarray]:
        """Encode one clip.

        Args:
            frames: uint8 RGB at 25 fps `(frames, height, width, 3)`.
            samples: float32 mono 16 kHz sound.
            landmarks: `(frames, 68, 2)`.

        Returns:
            The four arrays of the module docstring.

        Raises:
            DicetalkError: when an array holds non-finite values, e.g. latents beyond the range of fp16.
        """
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        latents = [self.codec.encode(batch) for batch in pixels.split(self.batch_frames)]
        images = [Image.fromarray(frame) for frame in frames[:: self.image_embedding_stride]]
        images = torch.stack([clip_pixels(image, self.image_encoder.config.image_size) for image in images])
        embeddings = [
            self.image_encoder(batch.to(self.image_encoder.device, self.image_encoder.dtype)).image_embeds
            for batch in images.split(self.batch_frames)
        ]
        encoded = {
            "latents": torch.cat(latents).half().cpu().numpy(),
            "image_embeddings": torch.cat(embeddings).half().cpu().numpy(),
            "speech": self.speech.encode(samples).astype(np.float16),
            "expression": expression_features(landmarks),
        }
        for name, values in encoded.items():
            if not np.isfinite(values).all():
                raise DicetalkError(
                    f"The {name} of a clip are not finite; check the weights of `backbone.weights`."
                )
        return encoded


def load_clip_encoder(backbone: Path, settings: Encode) -> ClipEncoder:
    """Return the encoder that section `encode` describes with the networks of `backbone`, on a GPU if any."""
    device, codec = compute_device(), load_codec(backbone)
    codec.autoencoder.to(device)
    return ClipEncoder(
        codec=codec,
        image_encoder=load_component(backbone, "image_encoder").to(device),
        speech=load_speech_encoder(settings.speech, backbone),
        image_embedding_stride=settings.image_embedding_stride,
        batch_frames=settings.batch_frames,
    )


def encode_set(processed: Path, encoder: ClipEncoder, run_dir: Path, output: Path) -> dict[str, float]:
    """Encode all clips of a processed set; shards finished by a killed run are not encoded again.

    Args:
        processed: `data/processed/<set>`.
        encoder: what encodes a clip.
        run_dir: where finished shards wait for the rest; named after everything the result depends on.
        output: `data/encoded/<set>`.

    Returns:
        Counts for the stage's metrics.
    """
    from dicetalk.data.shards import read_samples

    kept = pd.read_parquet(processed / "kept.parquet")
    names = {name: f"{Path(name).stem}.safetensors" for name in sorted(kept["shard"].unique())}
    for name in track(list(names), f"encode {processed.name}"):
        target = run_dir / names[name]
        if is_as_noted(target):
            continue
        tensors: dict[str, np.ndarray] = {}
        for sample in read_samples(processed / name):
            encoded = encoder.encode(sample.frames(), sample.audio(), sample.landmarks())
            # safetensors writes memory as it lies, whatever the strides: channels-last latents get scrambled.
            tensors |= {f"{sample.clip_id}/{key}": np.ascontiguousarray(v) for key, v in encoded.items()}
        with noted_path(target) as temporary:
            save_file(tensors, temporary)

    table = kept.assign(shard=kept["shard"].map(names))
    with atomic_directory(output) as temporary:
        for name in names.values():
            shutil.copyfile(run_dir / name, temporary / name)
        table.to_parquet(temporary / "clips.parquet", index=False)
    return {"clips": len(table), "frames": int(table["num_frames"].sum()), "shards": len(names)}
