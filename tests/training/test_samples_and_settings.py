"""Which clips are shown during training, and what the diffusion training passes on of the parameters."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from dicetalk.config import Params, load_params
from dicetalk.errors import DicetalkError
from dicetalk.labels import CLASSES
from dicetalk.models.autoencoder import DecoderOutput, EncoderOutput, PointDistribution
from dicetalk.models.backbones.denoisers.svd import SvdDenoiser
from dicetalk.models.backbones.files.svd import FrameCodec, SvdFiles
from dicetalk.release.package import model_settings
from dicetalk.tracking.tracker import Tracker
from dicetalk.training import finetune, samples
from dicetalk.training.samples import SampleVideos, choose_rows


def table(rows: list[tuple[str, str | None, int]]) -> pd.DataFrame:
    found = pd.DataFrame(rows, columns=["identity", "emotion", "level"])
    return found.assign(clip_id=[f"{i}-{e}-{v}" for i, e, v in rows])


def test_samples_take_emotions_and_people_in_turn_and_strong_ones_first() -> None:
    clips = table(
        [
            ("A", "happy", 1),  # 0
            ("A", "happy", 3),
            ("A", "sad", 3),  # 2
            ("B", "happy", 3),
            ("B", "angry", 2),  # 4
            ("B", "neutral", 1),
            ("C", None, 0),  # 6
        ]
    )
    # Level 3 by name: A happy. Then neither A nor happy: B angry. Then emotion and person of A sad were shown
    # once, those of the other two twice.
    assert choose_rows(clips, 3).tolist() == [1, 4, 2]
    assert choose_rows(clips, 9).tolist()[:3] == [1, 4, 2] and sorted(choose_rows(clips, 9)) == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert choose_rows(clips, 0).tolist() == []


def test_a_portrait_is_neutral_where_there_is_one() -> None:
    clips = table(
        [("A", "neutral", 1), ("B", "sad", 1), ("B", "neutral", 1), ("B", "neutral", 1), ("C", "sad", 1)]
    )
    assert [samples._portrait_row(clips, row) for row in (1, 4)] == [2, 4]


class Vae:
    config = SimpleNamespace(scaling_factor=0.5)

    def decode(self, latents: torch.Tensor) -> DecoderOutput:
        self.latents = latents
        return DecoderOutput(sample=latents * 10)


class Pipeline:
    def __init__(self) -> None:
        self.denoiser = SvdDenoiser(SimpleNamespace(device=torch.device("cpu")))
        self.vae, self.scheduler = Vae(), "training's"

    def set_progress_bar_config(self, disable: bool) -> None:
        pass

    def __call__(self, **given) -> SimpleNamespace:
        self.given, self.used = given, self.scheduler
        return SimpleNamespace(frames=np.full((len(given["image"]), 2, 4, 4, 3), [0.2, 0.5, 1.0]))


def test_samples_are_generated_as_the_generate_stage_does(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = table([("A", "sad", 2), ("A", "neutral", 1), ("B", "happy", 3)])
    loaded = []

    def load(rows, starts, references, first):
        loaded.append((rows.tolist(), starts.tolist(), references.tolist(), first.tolist()))
        return SimpleNamespace(
            classes=torch.tensor([CLASSES.index(("happy", 3)), CLASSES.index(("sad", 2))]),
            reference_latents=torch.tensor([-1.0, 2.0])[:, None, None, None],
            audio_windows="windows",
            face_masks="masks",
        )

    settings = load_params(repository / "profiles/demo.yaml").generate
    batches, pipeline = SimpleNamespace(clips=SimpleNamespace(table=clips), load=load), Pipeline()
    class_priors = np.arange(22.0)[:, None]
    shown = SampleVideos(pipeline, batches, class_priors, 12.5, "no", settings, 2)
    assert loaded == [([2, 0], [0, 0], [2, 1], [0, 0])]
    written = {}
    monkeypatch.setattr(
        samples, "write_video", lambda path, frames, fps: written.update({path.name: (frames, fps)})
    )
    shown.write(tmp_path)
    assert set(written) == {"A-sad-2.mp4", "B-happy-3.mp4"}
    frames, fps = written["A-sad-2.mp4"]
    assert fps == 12.5 and frames.dtype == np.uint8 and frames[0, 0, 0].tolist() == [51, 128, 255]
    given = pipeline.given
    # The stored latents are scaled by 0.5; decoded and cut off at black and white.
    assert pipeline.vae.latents.flatten().tolist() == pytest.approx([-2.0, 4.0])
    assert given["image"].flatten().tolist() == pytest.approx([-1.0, 1.0])
    assert given["emotion_prior"].flatten().tolist() == [
        CLASSES.index(("happy", 3)),
        CLASSES.index(("sad", 2)),
    ]
    assert (given["audio_windows"], given["face_mask"]) == ("windows", "masks")
    assert given["num_inference_steps"] == 4 and given["fps"] == 12.5
    for name in ("identity_scale", "audio_scale", "emotion_scale", "guidance_sigmas"):
        assert given[name] == getattr(settings, name)
    assert [g.initial_seed() for g in given["generator"]] == [settings.seed, settings.seed + 1]
    used = pipeline.used.config
    assert (used.sigma_min, used.sigma_max) == (settings.sigma_min, settings.sigma_max)
    assert pipeline.scheduler == "training's"


# --- what the training makes of the parameters


@pytest.fixture
def params(repository: Path) -> Params:
    return load_params(repository / "profiles/demo.yaml")


class Halving:
    """An autoencoder that halves the picture `times` times."""

    config, device, dtype = SimpleNamespace(scaling_factor=1.0), torch.device("cpu"), torch.float32

    def __init__(self, times: int) -> None:
        self.factor = 2**times

    def encode(self, pixels: torch.Tensor) -> EncoderOutput:
        latents = pixels[:, :1, :: self.factor, :: self.factor]
        return EncoderOutput(latent_dist=PointDistribution(latents))


def test_sides_are_multiples_of_what_autoencoder_and_unet_halve(params: Params):
    size_px, entries = params.preprocess.size_px, len(params.train_diffusion.pose_guider_channels)
    space = finetune.space_factor(FrameCodec(Halving(3)), size_px, entries)
    unet = {"block_out_channels": [8, 8, 8], "out_channels": 4, "num_frames": 2}
    assert SvdFiles().geometry(unet, space).size_multiple == 8 * 4
    with pytest.raises(DicetalkError, match="4 entries and so scales the mask down by 8, .* down by 4"):
        finetune.space_factor(FrameCodec(Halving(2)), size_px, entries)


def test_clips_are_as_long_as_a_window_at_the_models_rate(params: Params, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def read(*args) -> None:
        asked.append(args)
        raise LookupError

    monkeypatch.setattr(finetune, "EncodedClips", read)
    diffusion = params.train_diffusion.model_copy(update={"num_frames": 5, "frame_stride": 3})
    with pytest.raises(LookupError):  # at the table of the first clips
        changed = params.model_copy(update={"train_diffusion": diffusion})
        finetune.train_diffusion(changed, Path("root"), Path("run"), Tracker())
    folders, split, min_frames = asked[0]
    assert split == "train" and min_frames == 13  # frames 0, 3, 6, 9 and 12
    assert folders == [Path("root/data/encoded/mead"), Path("root/data/encoded/hdtf")]


def test_a_model_says_how_its_inputs_are_prepared(params: Params) -> None:
    settings = model_settings(params)
    preprocess = params.preprocess
    assert settings["fps"] == preprocess.fps == 25 and settings["frame_stride"] == 2
    assert settings["window_tokens"] == 10 and settings["size_px"] == preprocess.size_px
    assert settings["crop_margin"] == preprocess.crop_margin and settings["mask_area"] == preprocess.mask_area
    assert settings["min_face_score"] == preprocess.min_face_score
    assert settings["generate"] == params.generate.model_dump()
    assert settings["speech"] == params.encode.speech.model_dump()
