"""The index stage: the reader of a corpus, its split, a table."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pandas as pd

from dicetalk.config import CorpusIndex
from dicetalk.data.corpora.table import make_corpus
from dicetalk.data.index_table import write_index
from dicetalk.errors import DicetalkError
from dicetalk.labels import CLASSES
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


def build_index(name: str, section: CorpusIndex, path: Path) -> dict[str, Any]:
    """Index one corpus as section `index.<name>` of the parameters says, and write the table.

    Args:
        name: of the corpus.
        section: its section.
        path: of the table.

    Returns:
        Counts for the stage's metrics.

    Raises:
        DicetalkError: when the section, the folder of the corpus or the split is not right.
    """
    corpus, root = make_corpus(name, section), Path(section.root)
    if not root.is_dir():
        raise DicetalkError(
            f"{root} does not exist; put the data there or change index.{name}.root in params.yaml."
        )
    table = corpus.read(Path(path).parent)
    if corpus.classes:
        table = of_known_classes(table, name)
    table = assign_split(table, corpus.test_identities(), f"index.{name}.test_identities")
    write_index(table, root, path)
    summary = summarize(table)
    log(f"{path}: " + ", ".join(f"{count} {what}" for what, count in summary.items()))
    return summary


def of_known_classes(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows of an emotional corpus whose class the chosen emotion set has.

    Raises:
        DicetalkError: when there is none.
    """
    pairs = zip(table["emotion"].fillna(""), table["level"], strict=True)
    known = pd.Series([pair in CLASSES for pair in pairs], index=table.index)
    if not known.any():
        raise DicetalkError(f"index.{name}: no clip has an emotion and level of the chosen emotion set.")
    if known.all():
        return table
    log(f"{name}: {(~known).sum()} clips are of classes that the chosen emotion set lacks, and left out")
    return table[known].reset_index(drop=True)


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
