"""What the pipeline must know about a kind of corpus."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import pandas as pd

from dicetalk.config import CorpusIndex
from dicetalk.emotion_sets.emotion_set import Class
from dicetalk.errors import DicetalkError

Settings = TypeVar("Settings", bound=CorpusIndex)


class Corpus(ABC, Generic[Settings]):
    """A corpus in use: a kind, the name it has as a key of `index`, and its section there.

    Attributes:
        section: the keys that `index.<name>` may have.
        classes: the (emotion, level) labels that its clips may have, in the words of an emotion set
            (`dicetalk.emotion_sets`); none for a corpus of regular video.
        splits: lists of test identities that papers use, by the name under which
            `index.<name>.test_identities` may ask for them.
        source: where to get it, as one line for somebody who has not.
        licence: on which terms, in a few words; `docs/licences.md` has more.
    """

    section: ClassVar[type[CorpusIndex]]
    classes: ClassVar[tuple[Class, ...]] = ()
    splits: ClassVar[Mapping[str, list[str]]] = {}
    source: ClassVar[str]
    licence: ClassVar[str]

    def __init__(self, name: str, settings: Settings):
        self.name, self.settings = name, settings

    @abstractmethod
    def read(self, notes: Path) -> pd.DataFrame:
        """Return one row per clip below `index.<name>.root`, see `dicetalk.data.index_table`.

        The split is assigned later. Clip ids and people must not have the names of another corpus's.

        Args:
            notes: folder for lists that help the user, e.g. of files to download.

        Raises:
            DicetalkError: when the folder is not what the kind expects.
        """

    def test_identities(self) -> list[str] | int:
        """Return who is held out: names, or how many.

        Raises:
            DicetalkError: when the parameter names a split that the kind does not know.
        """
        wanted = self.settings.test_identities
        if not isinstance(wanted, str):
            return wanted
        if wanted not in self.splits:
            known = f", or one of {', '.join(self.splits)}" if self.splits else ""
            raise DicetalkError(
                f"index.{self.name}.test_identities: should be a list of names or their number{known}, "
                f"found {wanted!r}."
            )
        return self.splits[wanted]
