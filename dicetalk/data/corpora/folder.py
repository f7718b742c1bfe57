"""Any folder of videos as a corpus of regular video, e.g. VoxCeleb2; `dicetalk.data.folder` reads it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pydantic import PositiveInt

from dicetalk.config import CorpusIndex
from dicetalk.data.corpora.base import Corpus
from dicetalk.data.folder import index_folder


class FolderIndex(CorpusIndex):
    """How people are told apart."""

    # How many folders above a file the one is that names the person: VoxCeleb2 2, `person/clip.mp4` 1.
    identity_folder: PositiveInt


class Folder(Corpus[FolderIndex]):
    """More regular video (paper: HDTF, VoxCeleb2 and video from the internet)."""

    section = FolderIndex
    source = "any videos with one folder per person"
    licence = "that of the videos"

    def read(self, notes: Path) -> pd.DataFrame:
        """Return one row per video."""
        return index_folder(Path(self.settings.root), self.name, self.settings.identity_folder)
