"""Why a clip is not used. The codes are stable: other programs and people's notes refer to them."""

from __future__ import annotations

from dataclasses import dataclass

REASONS = {
    "unreadable": "a file is missing, damaged or cut off",
    "no_video": "the video file has no picture",
    "no_audio": "there is no sound",
    "silent": "the sound is quieter than preprocess.min_loudness_db",
    "too_short": "picture and sound together last less than preprocess.min_seconds",
    "no_face": "no face at the start",
    "face_lost": "the face is gone for more than preprocess.max_gap_frames frames",
    "several_faces": "several faces of comparable size",
    "face_too_small": "the face is smaller than preprocess.min_face_px",
    "shot_cut": "the picture jumps",
    "crop_out_of_frame": "the face moves out of the picture",
    "failed": "an unexpected error, shown in the log: damage of a new kind, or a defect of this program",
    "crashed": "the process died, or took longer than compute.preprocess.clip_timeout_seconds; twice",
}


@dataclass(frozen=True)
class Rejected:
    """Why a clip is not used: a key of `REASONS`, and what exactly was found."""

    code: str
    detail: str


class RejectionError(Exception):
    """Carries a `Rejected` out of the steps of preprocessing."""

    def __init__(self, code: str, detail: str):
        super().__init__(code, detail)
        self.rejected = Rejected(code, detail)
