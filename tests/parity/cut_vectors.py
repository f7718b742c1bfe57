"""Cut the golden vectors of the repository out of the full ones; what stays is bit for bit the same.

`python tests/parity/cut_vectors.py FULL` with the folder that holds the full `vectors/` and `contracts/`.
"""

from __future__ import annotations

import json
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from golden_vectors import VECTORS
from hashed_tensors import hashed_weight

# Weights are computed from (prefix in the file, prefix of the name that was hashed, seed) instead of stored.
HASHED_WEIGHTS = {
    "audio_proj": [("", "", 21)],
    "classifier": [("", "classifier.", 11)],
    "conditioning": [("whisper_encoder.", "encoder.", 71), ("audio_linear.", "", 72), ("emo_model.", "", 11)],
    "denoise_loop": [("vae.", "", 61), ("image_encoder.", "", 62), ("pose_guider.", "", 63)],
    "emotion_small": [("", "", 11)],
    "pose_guider": [("", "", 31)],
    "unet_tiny": [("", "", 41)],
    "unet_tiny_b": [("", "", 43)],
}
DROPPED = (
    # The released emotion priors, which are not ours to pass on, and what was computed from them
    "fullsize_conditioners/in.priors",
    "fullsize_conditioners/out.emo.*",
    "fullsize_conditioners/out.codebook.*",
    # Read by no test
    "emotion_small/out.codebook.z",
    "emotion_small/out.codebook.sq_distances",
    "preprocess/out.mel_stats",
    "scheduler/out.*.init_noise_sigma",
)
KEPT_PART = {
    "denoise_loop/out.decoded_frames": (slice(None), slice(None), slice(4)),  # frames; a chunk has three
    "preprocess/out.*.clip_image": (slice(None), slice(None, None, 8)),  # rows
    "unet_tiny_aux/out.masked.*": (slice(1),),
    "unet_tiny_aux/grad.in.spatial_condition": (slice(1),),
}
UNREAD_KEYS = ("bytes", "fill", "n_weight_tensors", "tensors")


def cut(full: Path, target: Path) -> None:
    """Write the cut of the folder `full` to `target`; raises `ValueError` for weights that are no hash."""
    (target / "contracts").mkdir(parents=True, exist_ok=True)
    for path in (full / "contracts").glob("*.json"):
        contract = json.loads(path.read_text())
        write_json(target / "contracts" / path.name, {key: contract[key] for key in ("module", "tensors")})
    for path in (full / "vectors").glob("*.json"):
        meta = {k: v for k, v in json.loads(path.read_text()).items() if k not in UNREAD_KEYS}
        file = path.with_suffix(".safetensors")
        if file.exists():
            tensors = load_file(file)
            stored_weights = [name for name in tensors if name.startswith("weights.")]
            weights = {name.removeprefix("weights."): tensors.pop(name) for name in stored_weights}
            if weights:
                meta["hashed_weights"] = hash_groups(path.stem, weights)
            save_file(kept(path.stem, tensors), target / file.name)
        write_json(target / path.name, meta)


def hash_groups(file: str, weights: dict[str, torch.Tensor]) -> list[dict]:
    """Return name and shape of each weight beside what to hash, having compared every number."""
    groups = []
    for prefix, hashed_as, seed in HASHED_WEIGHTS[file]:
        shapes = {}
        for key in [key for key in weights if key.startswith(prefix)]:
            name, value = key.removeprefix(prefix), weights.pop(key)
            if not torch.equal(hashed_weight(hashed_as + name, value.shape, seed), value.float()):
                raise ValueError(f"{file}: {key} is not the hash of its name with seed {seed}")
            shapes[name] = list(value.shape)
        groups.append({"prefix": prefix, "hashed_as": hashed_as, "seed": seed, "shapes": shapes})
    if weights:
        raise ValueError(f"{file}: no seed is known for {', '.join(weights)}")
    return groups


def kept(file: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    result = {}
    for name, value in tensors.items():
        if any(fnmatch(f"{file}/{name}", pattern) for pattern in DROPPED):
            continue
        parts = [part for pattern, part in KEPT_PART.items() if fnmatch(f"{file}/{name}", pattern)]
        result[name] = value[parts[0]].contiguous() if parts else value
    return result


def write_json(path: Path, content: dict) -> None:
    """One value per line, and lists of plain values on one line."""
    text = json.dumps(content, indent=1)
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: "[" + re.sub(r"\n\s*", " ", found[1]) + "]", text)
    path.write_text(text + "\n")


if __name__ == "__main__":
    cut(Path(sys.argv[1]), VECTORS)
