"""The roles that networks play in an evaluation, and what each says about a video.

| role | parts |
|---|---|
| emotion | `emotion`: class probabilities `(8,)`; some also `expression`: features `(frames, dim)` |
| emotion_second | `emotion_second`: class probabilities `(8,)`; `strength` `()` of the face, in levels |
| identity | `identity`: embeddings `(frames, dim)` |
| sync | `lips`, `heard`: embeddings `(windows, dim)` |
| image, video | `image`, `video`: features `(vectors, dim)` |
| landmarks | `landmarks`: 68 points `(frames, 68, 2)`, NaN where no face was found |
| pixels | `psnr`, `ssim` `()`: a formula, no network |
| perceptual | `lpips` `()` |
"""

from __future__ import annotations

from typing import Literal

Role = Literal[
    "emotion", "emotion_second", "identity", "sync", "image", "video", "landmarks", "pixels", "perceptual"
]
# The part of a role that holds vectors whose distribution can be compared.
FEATURES: dict[Role, str] = {
    "image": "image",
    "video": "video",
    "identity": "identity",
    "sync": "lips",
    "emotion": "expression",
}
