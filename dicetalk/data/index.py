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

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from dicetalk.config import ExtraIndex, HdtfIndex, MeadIndex
from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_path
from dicetalk.progress import log

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


def assign_split(table: pd.DataFrame, test_identities: list[str] | int, key: str) -> pd.DataFrame:
    """Return the table with whole identities in `train` or `test`.

    Args:
        table: index rows.
        test_identities: names to hold out, or how many. A number takes them in the order of a hash of their
            names, so that the choice does not follow the alphabet (MEAD's begin with M for men and W for
            women).
        key: path of the parameter, for error messages.

    Raises:
        DicetalkError: for unknown names, or when no identity would be left to train on.
    """
    identities = sorted(table["identity"].unique(), key=lambda name: (zlib.crc32(name.encode()), name))
    held_out = test_identities if isinstance(test_identities, list) else identities[:test_identities]
    if unknown := sorted(set(held_out) - set(identities)):
        raise DicetalkError(f"{key} names {', '.join(unknown)}; found only {', '.join(sorted(identities))}.")
    if len(set(held_out)) >= len(identities) or not held_out:
        raise DicetalkError(
            f"{key} = {test_identities} of {len(identities)} identities leaves a split empty."
        )
    is_test = table["identity"].isin(held_out)
    return table.assign(split=is_test.map({True: "test", False: "train"}).astype("string"))


def build_index(dataset: str, params: MeadIndex | HdtfIndex | ExtraIndex, path: Path) -> dict[str, Any]:
    """Index one data set as section `index.<dataset>` of the parameters says, and write the table.

    Returns:
        Counts for the stage's metrics.
    """
    from dicetalk.data.folder import index_folder
    from dicetalk.data.hdtf import index_hdtf
    from dicetalk.data.mead import SPLITS, index_mead

    key = f"index.{dataset}"
    root = Path(params.root)
    if not root.is_dir():
        raise DicetalkError(f"{root} does not exist; put the data there or change {key}.root in params.yaml.")
    if isinstance(params, MeadIndex):
        table = index_mead(root, params.views)
    elif isinstance(params, ExtraIndex):
        table = index_folder(root, dataset, params.identity_folder)
    else:
        missing = Path(path).with_name("hdtf-missing-videos.csv")
        table = index_hdtf(root, params.sets, params.piece_seconds, missing)
    held_out = params.test_identities
    held_out = SPLITS[held_out] if isinstance(held_out, str) else held_out
    table = assign_split(table, held_out, f"{key}.test_identities")
    write_index(table, root, path)
    summary = summarize(table)
    log(f"{path}: " + ", ".join(f"{count} {name}" for name, count in summary.items()))
    return summary


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


def summarize(table: pd.DataFrame) -> dict[str, int]:
    """Return counts of clips and identities by split."""
    tests = table["split"] == "test"
    return {
        "clips": len(table),
        "train_clips": int((~tests).sum()),
        "test_clips": int(tests.sum()),
        "train_identities": int(table.loc[~tests, "identity"].nunique()),
        "test_identities": int(table.loc[tests, "identity"].nunique()),
        "clips_without_audio": int(table["audio_path"].isna().sum()),
    }
