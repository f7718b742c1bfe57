"""Widths of encoded clips: read from the clips themselves, or known before there are any."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import Speech
from dicetalk.data.dataset import EncodedClips
from dicetalk.data.expression import EXPRESSION_DIM
from dicetalk.data.speech import speech_shape
from dicetalk.models.build import DataShape


def encoded_shape(clips: EncodedClips) -> DataShape:
    """Return the widths that clips have."""
    speech_layers, speech_channels = clips.read(0, "speech", 0, 1).shape[1:]
    return DataShape(speech_layers, speech_channels, clips.read(0, "expression", 0, 1).shape[1])


def planned_shape(speech: Speech, backbone: Path | None) -> DataShape:
    """Return the widths that `encode` will give clips.

    Args:
        speech: section `encode.speech`.
        backbone: folder of the backbone, which may bring a speech encoder.

    Raises:
        DicetalkError: when the backend needs one that is not there.
    """
    return DataShape(*speech_shape(speech, backbone), EXPRESSION_DIM)
