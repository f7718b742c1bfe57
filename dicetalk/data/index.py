"""The index stage: the reader of a corpus, its split, a table."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pandas as pd

from dicetalk.config import ExtraIndex, HdtfIndex, MeadIndex
from dicetalk.data.index_table import write_index
from dicetalk.errors import DicetalkError
from dicetalk.progress import log


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
