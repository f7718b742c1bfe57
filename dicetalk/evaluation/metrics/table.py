"""The table of metrics: evaluation computes a row, pages show it, `docs/metrics.md` lists it.

The order is that of columns and of results; pages go topic by topic.
"""

from __future__ import annotations

from typing import get_args

from dicetalk.evaluation.metrics import emotion, identity, landmarks, pixels, sync
from dicetalk.evaluation.metrics.emotion import EXPRESSIVE, SCORED_EMOTIONS
from dicetalk.evaluation.metrics.frechet import frechet_distance
from dicetalk.evaluation.metrics.metric import ClipMean, Labels, Metric, SetDistance, Topic
from dicetalk.labels import LEVELS, NEUTRAL

_FRECHET = SetDistance(frechet_distance, "Fréchet distance")
_SCORED_BUT_NEUTRAL = tuple(name for name in SCORED_EMOTIONS if name != NEUTRAL)

_ROWS = (
    Metric(
        "sync_c",
        label="Sync-C, confidence",
        unit="distance of embeddings",
        better="higher",
        topic="sync",
        role="sync",
        value=ClipMean(sync.measure, "sync_c"),
        definition="SyncNet confidence: median minus minimum of the mean distance over shifts of ±15 frames",
        floor="wrong_audio",
    ),
    Metric(
        "sync_d",
        label="Sync-D, distance",
        unit="distance of embeddings",
        better="lower",
        topic="sync",
        role="sync",
        value=ClipMean(sync.measure, "sync_d"),
        definition="SyncNet distance: that minimum",
        floor="wrong_audio",
    ),
    Metric(
        "av_offset",
        label="AV offset, frames",
        unit="frames",
        better="near 0",
        topic="sync",
        role="sync",
        value=ClipMean(sync.measure, "av_offset_frames"),
        definition="the shift of that minimum at 25 fps; positive when the sound is early",
    ),
    Metric(
        "f_sim",
        label="F-SIM, identity",
        unit="cosine",
        better="higher",
        topic="identity",
        role="identity",
        value=ClipMean(identity.measure, "f_sim"),
        definition="cosine of face embeddings, generated frames against the reference image (also CSIM)",
    ),
    Metric(
        "emotion_accuracy",
        label="Emotion accuracy",
        unit="share",
        better="higher",
        topic="recognition",
        role="emotion",
        value=ClipMean(emotion.measure, "emotion_correct", Labels()),
        definition="share of videos whose emotion (8 classes; chance 0.125) a classifier names correctly",
        floor="wrong_emotion",
    ),
    Metric(
        "emotion_accuracy_7",
        label="Emotion accuracy, 7 classes",
        unit="share",
        better="higher",
        topic="recognition",
        role="emotion",
        value=ClipMean(emotion.measure, "emotion_correct", Labels()),
        definition="the same by a network that knows seven; clips of contempt are left out",
        floor="wrong_emotion",
    ),
    Metric(
        "emotion_accuracy_second",
        label="Emotion accuracy, second network",
        unit="share",
        better="higher",
        topic="recognition",
        role="emotion_second",
        value=ClipMean(emotion.measure_second, "emotion_second_correct", Labels()),
        definition="the same by a second network of another architecture, see below",
        floor="wrong_emotion",
    ),
    Metric(
        "emo_score",
        label="Emo-Score",
        unit="probability",
        better="higher",
        topic="probability",
        role="emotion",
        value=ClipMean(emotion.measure, "target_probability", Labels(SCORED_EMOTIONS, by_emotion=True)),
        definition="mean probability of the wanted emotion over neutral, happy, surprised and angry, each "
        "counting equally, as in the paper: (neutral + 3 x non-neutral) / 4",
        floor="wrong_emotion",
    ),
    Metric(
        "emo_score_neutral",
        label="Emo-Score, neutral",
        unit="probability",
        better="higher",
        topic="probability",
        role="emotion",
        value=ClipMean(emotion.measure, "target_probability", Labels((NEUTRAL,), by_emotion=True)),
        definition="the same over neutral videos",
        floor="wrong_emotion",
    ),
    Metric(
        "emo_score_non_neutral",
        label="Emo-Score, non-neutral",
        unit="probability",
        better="higher",
        topic="probability",
        role="emotion",
        value=ClipMean(emotion.measure, "target_probability", Labels(_SCORED_BUT_NEUTRAL, by_emotion=True)),
        definition="the same over happy, surprised and angry ones",
        floor="wrong_emotion",
    ),
    Metric(
        "neutral_accuracy",
        label="Neutral accuracy",
        unit="share",
        better="higher",
        topic="recognition",
        role="emotion",
        value=ClipMean(emotion.measure, "emotion_correct", Labels((NEUTRAL,))),
        definition="share of neutral videos that the first network calls neutral",
        floor="wrong_emotion",
    ),
    Metric(
        "neutral_accuracy_second",
        label="Neutral accuracy, second network",
        unit="share",
        better="higher",
        topic="recognition",
        role="emotion_second",
        value=ClipMean(emotion.measure_second, "emotion_second_correct", Labels((NEUTRAL,))),
        definition="share of neutral videos that the second network calls neutral",
        floor="wrong_emotion",
    ),
    Metric(
        "expression_strength_neutral",
        label="Expression strength, neutral",
        unit="levels",
        better="near `real`'s",
        topic="strength",
        role="emotion_second",
        value=ClipMean(emotion.measure_strength, "expression_strength", Labels((NEUTRAL,))),
        definition="how strong the expression of neutral videos looks to the second network; see below",
    ),
    *(
        Metric(
            f"expression_strength_level_{level}",
            label=f"Expression strength, level {level}",
            unit="levels",
            better="near `real`'s",
            topic="strength",
            role="emotion_second",
            value=ClipMean(
                emotion.measure_strength, "expression_strength", Labels(EXPRESSIVE, level, by_emotion=True)
            ),
            definition=f"the same for videos of level {level}, over the seven emotions that have levels",
        )
        for level in LEVELS
    ),
    Metric(
        "lmd",
        label="LMD, landmark distance",
        unit="eye distances",
        better="lower",
        topic="lips",
        role="landmarks",
        value=ClipMean(landmarks.measure, "lmd"),
        definition="distance of mouth landmarks between generated and real video, frame by frame",
        floor="still",
    ),
    Metric(
        "m_lmd",
        label="M-LMD, mouth, pixels",
        unit="px of 256",
        better="lower",
        topic="lips",
        role="landmarks",
        value=ClipMean(landmarks.measure, "m_lmd"),
        definition="the same in pixels of a picture of 256, as EAT defines it",
        floor="still",
    ),
    Metric(
        "f_lmd",
        label="F-LMD, face, pixels",
        unit="px of 256",
        better="lower",
        topic="lips",
        role="landmarks",
        value=ClipMean(landmarks.measure, "f_lmd"),
        definition="the same of the whole face",
        floor="still",
    ),
    Metric(
        "psnr",
        label="PSNR, dB",
        unit="dB",
        better="higher",
        topic="pixels",
        role="pixels",
        value=ClipMean(pixels.measure, "psnr"),
        definition="likeness of the frames themselves to the real ones; a head that moves otherwise scores "
        "badly",
    ),
    Metric(
        "ssim",
        label="SSIM",
        unit="",
        better="higher",
        topic="pixels",
        role="pixels",
        value=ClipMean(pixels.measure, "ssim"),
        definition="the same by structure: Gaussian window of 11, sigma 1.5",
    ),
    Metric(
        "lpips",
        label="LPIPS",
        unit="",
        better="lower",
        topic="pixels",
        role="perceptual",
        value=ClipMean(pixels.measure, "lpips"),
        definition="the same by features of AlexNet",
        network="alexnet",
    ),
    Metric(
        "fid",
        label="FID",
        unit="squared features",
        better="lower",
        topic="features",
        role="image",
        value=_FRECHET,
        definition="Fréchet distance of Inception's 2048 features, with the published weights and only then "
        "under this name",
        network="inception-fid",
    ),
    Metric(
        "fvd",
        label="FVD",
        unit="squared features",
        better="lower",
        topic="features",
        role="video",
        value=_FRECHET,
        definition="the same of I3D's 400 logits, with the published weights and only then under this name",
        network="i3d-fvd",
    ),
    Metric(
        "fd_image",
        label="Fréchet distance, frames",
        unit="squared features",
        better="lower",
        topic="features",
        role="identity",
        value=_FRECHET,
        definition="the same distance of frame features of another, *named* network",
    ),
    Metric(
        "fd_video",
        label="Fréchet distance, video",
        unit="squared features",
        better="lower",
        topic="features",
        role="sync",
        value=_FRECHET,
        definition="the same of clip features of another, *named* network",
    ),
    Metric(
        "fd_expression",
        label="Fréchet distance, expression",
        unit="squared features",
        better="lower",
        topic="features",
        role="emotion",
        value=_FRECHET,
        definition="the same of an expression network's features: what E-FID measures on 3DMM coefficients",
    ),
)
METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}


def by_topic() -> list[Metric]:
    """Return the rows as pages show them: topic by topic, in the order of `Topic`."""
    topics = get_args(Topic)
    return sorted(_ROWS, key=lambda row: topics.index(row.topic))
