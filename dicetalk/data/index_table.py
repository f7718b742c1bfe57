"""The index: one row per raw clip, the same columns for every data set, split by identity.

| column | meaning |
|---|---|
| clip_id | unique name: letters, digits, `_`, `-` |
| dataset, identity, sentence, view | where the clip comes from; sentence and view may be missing |
| emotion, level | MEAD names and 1-3; missing and 0 for clips without a label |
| video_path, audio_path | relative to the raw root; equal when the video carries sound; missing = no sound |
| start_seconds, end_seconds | the span of the files that is the clip; no end = to the end of the file |
| crop_x, crop_y, crop_w, crop_h | where the person is, if the data set says so, in pixels of the frame |
| split | `train` or `test` |
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_path

DTYPES = {
    "clip_id": "string",
    "dataset": "string",
    "identity": "string",
    "emotion": "string",
    "level": "int64",
    "sentence": "string",
    "view": "string",
    "video_path": "string",
    "audio_path": "string",
    "start_seconds": "float64",
    "end_seconds": "float64",
    "crop_x": "Int64",
    "crop_y": "Int64",
    "crop_w": "Int64",
    "crop_h": "Int64",
    "split": "string",
}
DEFAULTS: dict[str, Any] = {"level": 0, "start_seconds": 0.0, "split": "train"}


def make_table(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return index rows as a table with all columns in order, sorted by clip id."""
    table = pd.DataFrame(list(records))
    for name in DTYPES:
        if name not in table:
            table[name] = DEFAULTS.get(name)
    table = table[list(DTYPES)].astype(DTYPES)
    return table.sort_values("clip_id", ignore_index=True)


def write_index(table: pd.DataFrame, raw_root: Path, path: Path) -> None:
    """Write the table as parquet; the raw root travels in its meta data."""
    table = table.copy()
    table.attrs["raw_root"] = Path(raw_root).as_posix()
    with atomic_path(Path(path)) as temporary:
        table.to_parquet(temporary, index=False)


def read_index(path: Path) -> tuple[pd.DataFrame, Path]:
    """Return the table and the raw root its paths are relative to."""
    path = Path(path)
    if not path.is_file():
        raise DicetalkError(f"{path} does not exist; run `dvc repro index`.")
    table = pd.read_parquet(path)
    if "raw_root" not in table.attrs or list(table.columns) != list(DTYPES):
        raise DicetalkError(f"{path} is not an index of this version; run `dvc repro index`.")
    return table, Path(table.attrs["raw_root"])
