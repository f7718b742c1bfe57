"""The kinds of corpora that section `index` can name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dicetalk.config import CorpusIndex
from dicetalk.config.errors import explain
from dicetalk.data.corpora.base import Corpus
from dicetalk.data.corpora.folder import Folder
from dicetalk.data.corpora.hdtf import Hdtf
from dicetalk.data.corpora.mead import Mead
from dicetalk.errors import DicetalkError

KINDS: dict[str, type[Corpus[Any]]] = {
    "mead": Mead,
    "hdtf": Hdtf,
    "folder": Folder,
}


def make_corpus(name: str, section: CorpusIndex) -> Corpus[Any]:
    """Return the corpus that `index.<name>` describes.

    Raises:
        DicetalkError: for an unknown kind, or keys or a split that the kind does not have.
    """
    if section.kind not in KINDS:
        raise DicetalkError(
            f"index.{name}.kind: unknown, expected one of {', '.join(KINDS)}, found {section.kind!r}."
        )
    kind = KINDS[section.kind]
    try:
        settings = kind.section.model_validate(section.model_dump())
    except ValidationError as error:
        wrong = [f"index.{name}.{line}" for line in explain(error, kind.section)]
        raise DicetalkError("\n  ".join([f"kind {section.kind} has other parameters:", *wrong])) from None
    corpus = kind(name, settings)
    corpus.test_identities()
    return corpus


def corpora_of(index: Mapping[str, CorpusIndex]) -> list[Corpus[Any]]:
    """Return the corpora that section `index` describes, in its order.

    Raises:
        DicetalkError: when one is described wrongly, or none has emotion labels.
    """
    corpora = [make_corpus(name, section) for name, section in index.items()]
    if not any(corpus.classes for corpus in corpora):
        emotional = ", ".join(name for name, kind in KINDS.items() if kind.classes)
        raise DicetalkError(
            f"index: no corpus has emotion labels, which training needs; add one of kind {emotional}."
        )
    return corpora
