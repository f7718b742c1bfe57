"""The order of labels is part of every trained model: class 15 stays neutral while there are weights."""

from __future__ import annotations

import pytest

from dicetalk.errors import DicetalkError
from dicetalk.labels import (
    CLASSES,
    EMOTIONS,
    LEVELS,
    NEUTRAL,
    class_index,
    emotion_index,
    levels_of,
)


def test_emotions_are_in_alphabetical_order_and_neutral_has_one_level() -> None:
    assert EMOTIONS == ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")
    assert EMOTIONS == tuple(sorted(EMOTIONS)) and LEVELS == (1, 2, 3) and NEUTRAL == "neutral"
    assert levels_of("neutral") == (1,) and levels_of("sad") == (1, 2, 3)


def test_classes_count_levels_within_emotions() -> None:
    assert len(CLASSES) == 7 * 3 + 1
    expected = {("angry", 1): 0, ("angry", 3): 2, ("contempt", 1): 3, ("happy", 2): 13, ("neutral", 1): 15}
    expected |= {("sad", 1): 16, ("surprised", 3): 21}
    assert {pair: class_index(*pair) for pair in expected} == expected
    assert [class_index(*pair) for pair in CLASSES] == list(range(22))
    assert (emotion_index("angry"), emotion_index("neutral"), emotion_index("surprised")) == (0, 5, 7)


@pytest.mark.parametrize(("emotion", "level"), [("neutral", 2), ("sad", 0), ("sad", 4), ("joy", 1)])
def test_classes_that_do_not_exist_are_refused(emotion: str, level: int) -> None:
    with pytest.raises(DicetalkError, match=emotion):
        class_index(emotion, level)
