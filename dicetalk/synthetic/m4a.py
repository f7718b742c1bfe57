"""Writing sound files as MEAD has them: AAC in m4a, 48 kHz stereo."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from scipy.signal import resample_poly

from dicetalk.files import atomic_path
from dicetalk.synthetic.speech import SAMPLE_RATE_HZ

M4A_RATE_HZ = 48000
BIT_RATE = 96000


def write_m4a(path: Path, samples: np.ndarray) -> None:
    """Write mono float32 16 kHz sound as 48 kHz stereo AAC; equal samples give equal bytes."""
    upsampled = resample_poly(samples, M4A_RATE_HZ // SAMPLE_RATE_HZ, 1).astype(np.float32)
    stereo = np.ascontiguousarray(np.clip(np.stack([upsampled, upsampled]), -1, 1))
    options = {"fflags": "+bitexact"}
    with (
        atomic_path(path) as temporary,
        av.open(str(temporary), "w", format="ipod", options=options) as container,
    ):
        stream = container.add_stream(
            "aac", rate=M4A_RATE_HZ, layout="stereo", options={"flags": "+bitexact", "aac_coder": "fast"}
        )
        stream.bit_rate = BIT_RATE
        frame = av.AudioFrame.from_ndarray(stereo, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = M4A_RATE_HZ, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
