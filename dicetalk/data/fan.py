"""68 landmarks of the FAN network through the `face_alignment` package, which papers measure LMD with.

The package is not a dependency: it asks for `opencv-python`, which overwrites the headless OpenCV. It works
with either, so it is installed without its dependencies (`docs/data.md`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from dicetalk import weights
from dicetalk.errors import DicetalkError

WEIGHTS = "fan-2d"


class FanLandmarks:
    """Places the iBUG points on a face that is already found; runs on a GPU if there is one.

    On a CPU PyTorch keeps to one thread in this process from now on, as OpenCV does in preprocessing: one
    process per core is faster, and points do not depend on the number of threads.

    Raises:
        DicetalkError: when the package or the weights are missing.
    """

    def __init__(self) -> None:
        try:
            import face_alignment
        except ImportError as error:
            raise DicetalkError(
                f"preprocess.landmarks = face_alignment needs its package ({error}): "
                "pip install scikit-image && pip install --no-deps face-alignment==1.5.0"
            ) from None
        import torch

        from dicetalk.compute.precision import compute_device

        torch.set_num_threads(1)
        file = weights.resolve(WEIGHTS)
        home = torch.hub.get_dir()
        # The package takes no path: it looks for its own file name in torch's hub folder, else downloads it.
        with tempfile.TemporaryDirectory() as hub:
            checkpoints = Path(hub, "checkpoints")
            checkpoints.mkdir()
            (checkpoints / next(iter(weights.get(WEIGHTS).files))).symlink_to(file.resolve())
            torch.hub.set_dir(hub)
            try:
                self._network = face_alignment.FaceAlignment(
                    face_alignment.LandmarksType.TWO_D,
                    device=str(compute_device()),
                    face_detector="folder",  # the one that needs no weights; boxes are handed over
                    compile=False,
                )
            finally:
                torch.hub.set_dir(home)

    def points(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Return the 68 points of one face `(68, 2)` in pixels of the frame.

        Args:
            frame: RGB uint8 `(height, width, 3)`.
            box: left, top, width, height of the face, forehead to chin, as S3FD draws it.
        """
        corners = np.concatenate([box[:2], box[:2] + box[2:]])
        (points,) = self._network.get_landmarks_from_image(np.ascontiguousarray(frame), [corners])
        return points
