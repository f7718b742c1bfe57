"""What an emotion set is, and what follows from it: the classes of a trained model and their order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from dicetalk.errors import DicetalkError

Class = tuple[str, int]


@dataclass(frozen=True)
class EmotionSet:
    """Emotions with the intensity levels of each; a class is one (emotion, level) pair.

    Attributes:
        levels_by_emotion: the levels of each emotion, weakest first. The order of emotions is the order of
            outputs of every network trained with the set, so it never changes.
        neutral: the emotion that portraits and references show.
    """

    levels_by_emotion: Mapping[str, tuple[int, ...]]
    neutral: str

    @cached_property
    def emotions(self) -> tuple[str, ...]:
        """The emotions in order."""
        return tuple(self.levels_by_emotion)

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Every level that some emotion has, weakest first."""
        return tuple(sorted(set().union(*self.levels_by_emotion.values())))

    @cached_property
    def classes(self) -> tuple[Class, ...]:
        """The (emotion, level) pairs in order."""
        return tuple((emotion, level) for emotion, own in self.levels_by_emotion.items() for level in own)

    @cached_property
    def _class_indices(self) -> dict[Class, int]:
        return {pair: index for index, pair in enumerate(self.classes)}

    def check_emotion(self, emotion: str) -> None:
        """Raise `DicetalkError` unless `emotion` is one of the set."""
        if emotion not in self.levels_by_emotion:
            raise DicetalkError(f"Unknown emotion {emotion!r}; expected one of {', '.join(self.emotions)}.")

    def levels_of(self, emotion: str) -> tuple[int, ...]:
        """Return the levels of an emotion, weakest first."""
        self.check_emotion(emotion)
        return self.levels_by_emotion[emotion]

    def emotion_index(self, emotion: str) -> int:
        """Return the position of an emotion, from 0."""
        self.check_emotion(emotion)
        return self.emotions.index(emotion)

    def class_index(self, emotion: str, level: int) -> int:
        """Return the position of an (emotion, level) pair among the classes, from 0.

        Raises:
            DicetalkError: for an unknown emotion or a level the emotion does not have.
        """
        if level not in self.levels_of(emotion):
            raise DicetalkError(f"Emotion {emotion!r} has levels {self.levels_of(emotion)}, not {level!r}.")
        return self._class_indices[emotion, level]
