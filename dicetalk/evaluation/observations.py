"""What networks saw in videos, kept on disk: it need not fit into memory, and killed work continues."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from dicetalk.evaluation.roles import Role
from dicetalk.files import atomic_path

PROBLEMS, DETAILS = "problems", "details"


class Observation:
    """The named arrays of one measured video, read from its file when asked for.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __contains__(self, part: str) -> bool:
        return part in self.parts

    def __getitem__(self, part: str) -> np.ndarray:
        with np.load(self.path, allow_pickle=False) as arrays:
            return arrays[part]

    @cached_property
    def parts(self) -> frozenset[str]:
        """Names of its arrays."""
        with np.load(self.path, allow_pickle=False) as arrays:
            return frozenset(arrays.files)

    @cached_property
    def problems(self) -> dict[str, str]:
        """Role -> why it could not be measured."""
        return json.loads(str(self[PROBLEMS]))

    @cached_property
    def details(self) -> dict:
        """What the clip says about itself: `identity`, `emotion`, `level`, `num_frames`."""
        return json.loads(str(self[DETAILS]))


class Store:
    """A folder of observations, named by a digest of all they depend on.

    Args:
        folder: made when missing.
        setting: whatever the numbers depend on besides the video: protocol and networks.
    """

    def __init__(self, folder: Path, setting: str) -> None:
        self.folder, self.setting = Path(folder), setting
        self.folder.mkdir(parents=True, exist_ok=True)

    def find(self, *content: str) -> Observation | None:
        """Return the observation of this content if it has been made and its file is undamaged."""
        path = self._path(*content)
        try:
            with zipfile.ZipFile(path) as archive:
                return Observation(path) if archive.testzip() is None else None  # compares checksums
        except (FileNotFoundError, zipfile.BadZipFile):
            return None

    def add(
        self, arrays: Mapping[str, np.ndarray], problems: Mapping[Role, str], details: Mapping, *content: str
    ) -> Observation:
        """Write an observation and return it."""
        path = self._path(*content)
        texts = {PROBLEMS: np.array(json.dumps(dict(problems))), DETAILS: np.array(json.dumps(dict(details)))}
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **texts, **arrays)  # type: ignore[arg-type]
        return Observation(path)

    def _path(self, *content: str) -> Path:
        digest = hashlib.sha256("\0".join([self.setting, *content]).encode()).hexdigest()
        return self.folder / f"{digest[:32]}.npz"
