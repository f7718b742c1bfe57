"""Mixtures of emotions: what a user may write, and what it makes of the priors."""

from __future__ import annotations

import re

import pytest

from dicetalk.errors import DicetalkError
from dicetalk.generation.emotion_mix import parse_emotion


def test_a_name_is_the_whole_mixture():
    assert parse_emotion("happy", 3) == {("happy", 3): 1.0}


def test_neutral_joins_at_its_only_level():
    assert parse_emotion("happy:0.75, neutral:0.25", 3) == {("happy", 3): 0.75, ("neutral", 1): 0.25}


@pytest.mark.parametrize(
    ("text", "level", "message"),
    [
        ("neutral", 2, "has levels (1,)"),
        ("joyful:1", 1, "Unknown emotion 'joyful'"),
        ("happy:0.5", 1, "not to 0.5"),
        ("happy:1.5,sad:-0.5", 1, "must be in [0, 1]"),
        ("happy,sad", 1, "'happy' has no weight"),
        ("happy:nan,sad:1", 1, "must be in [0, 1]"),
        ("happy:0.5,happy:0.5", 1, "twice"),
    ],
)
def test_what_is_no_mixture_is_refused(text: str, level: int, message: str):
    with pytest.raises(DicetalkError, match=re.escape(message)):
        parse_emotion(text, level)
