"""The page of a study: one HTML file with its script, style and lists, and no address of another machine."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from dicetalk.study.key import Key
from dicetalk.study.questions import CRITERIA, PREFERENCES, SCALE, wording
from dicetalk.templating import page_templates

SCRIPTS = ("store.js", "trial.js", "flow.js")
SECONDS_TO_ANSWER = 12  # a guess, for the duration that the first screen announces
MEDIA = "media"


def page_content(key: Key, emotions: Mapping[str, str | None]) -> dict[str, Any]:
    """Return what the script of the page knows: nothing from which a system could be told.

    Args:
        key: the key of the study; of it only opaque names are used.
        emotions: clip -> wanted emotion.
    """
    trials = {}
    for name, trial in key.trials.items():
        kind = trial.part if trial.kind == "check" else trial.kind
        media = [trial.left, trial.right] if trial.kind == "pair" else [trial.stimulus]
        if kind == "pair" and len(media) == 1:
            media *= 2
        trials[name] = {
            "kind": kind,
            "media": [f"{MEDIA}/{token}.mp4" for token in media],
            "emotion": emotions[key.stimuli[media[0]].clip],
        }
    return {
        "study": key.study,
        "scale": SCALE,
        "preferences": PREFERENCES,
        "criteria": key.criteria,
        "questions": _questions(key, set(emotions.values())),
        "trials": trials,
        "slots": key.slots,
    }


def render(key: Key, content: Mapping[str, Any]) -> str:
    """Return the HTML page."""
    templates = page_templates("dicetalk.study")
    script = "\n".join(_source(templates, name) for name in SCRIPTS)
    style = _source(templates, "study.css")
    # Whatever the lists hold, they cannot end the element that carries them.
    data = json.dumps(content, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")
    return templates.get_template("study.html.j2").render(
        title=key.title,
        minutes=minutes(key),
        num_trials=max(len(slot) for slot in key.slots),
        num_slots=len(key.slots),
        has_ratings=any(trial["kind"] == "rating" for trial in content["trials"].values()),
        has_pairs=any(trial["kind"] == "pair" for trial in content["trials"].values()),
        script=Markup(script),
        style=Markup(style),
        data=Markup(data),
        policy=_policy(script, style),
    )


def minutes(key: Key) -> int:
    """Return about how long the longest list takes."""
    seconds = [sum(key.seconds(key.trials[name]) + SECONDS_TO_ANSWER for name in slot) for slot in key.slots]
    return max(1, round(max(seconds) / 60))


def _questions(key: Key, emotions: set[str | None]) -> dict[str, Any]:
    """Return the texts of each criterion, by kind of trial and wanted emotion."""
    return {
        criterion: {
            "label": CRITERIA[criterion].label,
            "worst": CRITERIA[criterion].worst,
            "best": CRITERIA[criterion].best,
            "rating": {emotion or "": wording(CRITERIA[criterion].rating, emotion) for emotion in emotions},
            "pair": {emotion or "": wording(CRITERIA[criterion].comparison, emotion) for emotion in emotions},
        }
        for criterion in key.criteria
    }


def _source(templates: Environment, name: str) -> str:
    assert templates.loader is not None
    return templates.loader.get_source(templates, name)[0]


def _policy(script: str, style: str) -> str:
    """Return the content security policy: own videos, this very script and style, and nothing else.

    `file:` is for a page opened from a disk, where `'self'` means nothing in some browsers.
    """

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; media-src 'self' file:; script-src 'sha256-{digest(script)}';"
        f" style-src 'sha256-{digest(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
