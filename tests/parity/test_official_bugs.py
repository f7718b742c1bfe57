"""The bugs found in the official inference code, one by one: ours does not have them.

Names follow the numbered list in section 7 of the reference's NOTES.md.
"""

from __future__ import annotations

import ast
import os
import pickle
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pipeline import make_pipeline

from dicetalk.cli.app import app
from dicetalk.config import Generate, Speech, load_params
from dicetalk.data.detect import Face, FaceDetector
from dicetalk.data.media import probe, read_audio
from dicetalk.data.speech import load_speech_encoder
from dicetalk.errors import DicetalkError
from dicetalk.generation import clip as generation
from dicetalk.generation.clip import Request, TalkingModel, generate_frames, generate_one, write_result
from dicetalk.generation.interpolation import to_output_rate
from dicetalk.generation.portrait import Portrait, read_portrait
from dicetalk.labels import EMOTIONS
from dicetalk.models.preprocessing import model_size
from dicetalk.models.windows import WindowPlan
from dicetalk.release.official_files import import_official
from dicetalk.release.prior_files import read_prior

FPS = 25


@pytest.fixture(scope="module")
def settings(repository: Path) -> Generate:
    section = load_params(repository / "profiles/demo.yaml").generate
    return section.model_copy(update={"num_inference_steps": 1, "identity_scale": 1.0, "threads": 1})


@pytest.fixture(scope="module")
def model() -> TalkingModel:
    rng = np.random.default_rng(0)
    return TalkingModel(
        pipeline=make_pipeline(),
        embedder=None,
        priors={f"P/{emotion}": rng.normal(size=12).astype(np.float32) for emotion in EMOTIONS},
        speech=load_speech_encoder(Speech(backend="logmel", num_mels=6), Path()),
        settings={
            "fps": FPS,
            "frame_stride": 2,
            "window_tokens": 10,
            "size_px": 32,
            "crop_margin": 0.5,
            "mask_area": 1.1,
            "min_face_score": 0.5,
        },
    )


def request(model: TalkingModel, seed: int) -> Request:
    portrait = Portrait(np.full((32, 32, 3), 90, np.uint8), (4, 4, 24, 24))
    speech = np.random.default_rng(1).normal(size=(8, 1, 6))
    return Request(portrait, speech, model.class_prior("happy", 1), 2, seed)


def write_wav(path: Path, seconds: float, rate_hz: int = 16_000) -> Path:
    samples = np.random.default_rng(2).integers(-3000, 3000, int(seconds * rate_hz), dtype=np.int16)
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(rate_hz)
        stream.writeframes(samples.tobytes())
    return path


@pytest.fixture
def any_portrait(monkeypatch):
    """Generation without the face networks."""
    portrait = Portrait(np.full((32, 32, 3), 90, np.uint8), (4, 4, 24, 24))
    monkeypatch.setattr(generation, "read_portrait", lambda *_, **__: portrait)


def test_01_cuda_is_not_hard_coded(model, settings, capsys):
    assert model.pipeline.device.type == "cpu"
    frames = generate_frames(model, [request(model, 1)], settings)
    assert frames.shape == (1, 4, 32, 32, 3)
    assert "torch.Size" not in capsys.readouterr().out  # nor are shapes printed


def test_02_a_picture_without_a_face_is_an_error_that_says_so(tmp_path):
    from PIL import Image

    Image.new("RGB", (80, 80)).save(tmp_path / "black.png")
    with pytest.raises(DicetalkError, match="shows no face"):
        read_portrait(tmp_path / "black.png", 64, 0.5, 1.1, 0.5)


@pytest.mark.parametrize("areas", [(100, 400, 225), (400, 100, 225), (225, 100, 400)])
def test_03_the_largest_face_is_taken(monkeypatch, areas):
    faces = [Face(np.array([0, 0, area**0.5, area**0.5]), 0.9, np.zeros((6, 2))) for area in areas]
    monkeypatch.setattr(FaceDetector, "detect_in", lambda *_: faces)
    detector = FaceDetector.__new__(FaceDetector)
    assert detector.detect(np.zeros((8, 8, 3), np.uint8))[0].box[2] == 20


def test_04_seed_0_is_a_seed_and_calls_leave_no_defaults_behind(model, settings):
    def run(seed, **changes):
        return generate_frames(model, [request(model, seed)], settings.model_copy(update=changes))

    first = run(0)
    assert not (run(1, audio_scale=9.0, num_inference_steps=2) == first).all()
    torch.manual_seed(5)  # nor does the global state matter
    assert (run(0) == first).all()


def test_04_the_command_line_passes_seed_0_on(monkeypatch, tmp_path, settings):
    from typer.testing import CliRunner

    got = {}
    stored = type("Model", (), {"settings": {"generate": settings.model_dump()}})
    monkeypatch.setattr(generation, "load_model", lambda folder: stored)
    monkeypatch.setattr(
        generation, "generate_one", lambda m, i, a, o, chosen, *rest: got.update(chosen.model_dump())
    )
    (tmp_path / "a.png").touch()
    command = f"generate --image {tmp_path}/a.png --audio {tmp_path}/a.png --out {tmp_path}/o.mp4 --seed 0"
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0 and settings.seed != 0
    assert got["seed"] == 0 and got["audio_scale"] == settings.audio_scale
    assert stored.settings["generate"]["seed"] == settings.seed


def test_05_missing_and_unexpected_keys_and_pickled_code_are_refused(model, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "code-has-run"),)

    module, path = model.pipeline.pose_guider, tmp_path / "pose_guider.pth"
    state = dict(module.state_dict())
    for change, message in [
        ({**state, "extra": torch.zeros(1)}, "extra"),
        ({key: value for key, value in state.items() if key != "conv_in.bias"}, "lacks conv_in.bias"),
        ({**state, "conv_in.bias": Payload()}, "plain tensors"),
    ]:
        torch.save(change, path)
        with pytest.raises(DicetalkError, match=message):
            import_official(tmp_path, {"pose_guider": module})
    np.save(tmp_path / "happy.npy", np.array({"mu": Payload()}), allow_pickle=True)
    with pytest.raises(DicetalkError, match="not an emotion prior"):
        read_prior(tmp_path / "happy.npy")
    assert not (tmp_path / "code-has-run").exists()
    pickle.loads(pickle.dumps(Payload()))  # the payload would have worked
    assert (tmp_path / "code-has-run").exists()


@pytest.mark.parametrize(
    "name", ["it's $(touch x) `y`; z.mp4", "clips.mp4/inside.mp4", "späce in.mp4", "a.b.mp4"]
)
def test_06_any_output_path_works(tmp_path, name):
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    write_result(tmp_path / name, frames, np.zeros(16_000, np.float32), FPS, {"title": "t"})
    assert probe(tmp_path / name).num_frames == 2
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [Path(name).name]


def test_06_a_bare_file_name_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_result(Path("bare.mp4"), np.zeros((1, 32, 32, 3), np.uint8), np.zeros(640, np.float32), FPS, {})
    assert (tmp_path / "bare.mp4").is_file()


def test_06_other_suffixes_are_refused_before_a_model_is_loaded(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.setattr(generation, "load_model", lambda folder: pytest.fail("a model was loaded"))
    (tmp_path / "a.png").touch()
    command = f"generate --image {tmp_path}/a.png --audio {tmp_path}/a.png --out {tmp_path}/o.gif"
    result = CliRunner().invoke(app, command.split())
    assert isinstance(result.exception, DicetalkError) and ".mp4" in str(result.exception)


def test_06_no_command_goes_through_a_shell(repository):
    for file in (repository / "dicetalk").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                assert node.attr not in ("system", "popen"), file
            assert not (isinstance(node, ast.keyword) and node.arg == "shell"), file


def test_07_video_is_encoded_once_and_rounded(model, settings, tmp_path, monkeypatch, any_portrait):
    """Truncation would darken by half a level on average."""
    values = np.array([0.0, 0.4, 0.6, 1.49, 1.51, 254.4, 254.6, 255.0], np.float32) / 255
    frames = np.broadcast_to(values[None, None, :, None], (1, 4, 8, 3))
    assert to_output_rate(frames, 1)[0, 0, :, 0].tolist() == [0, 0, 1, 1, 2, 254, 255, 255]

    encodings = []
    write_video = generation.write_video
    monkeypatch.setattr(
        generation,
        "write_video",
        lambda path, *args, **kw: encodings.append(path) or write_video(path, *args, **kw),
    )
    generate_one(model, Path("x"), write_wav(tmp_path / "a.wav", 0.2), tmp_path / "o.mp4", settings, 1, "sad")
    assert encodings == [tmp_path / "o.mp4"]


@pytest.mark.parametrize("seconds", [0.0, 0.04, 0.079])
def test_08_too_short_audio_is_an_error_that_says_so(model, settings, tmp_path, seconds, any_portrait):
    audio = write_wav(tmp_path / "a.wav", seconds)
    with pytest.raises(DicetalkError, match=r"too short; 0\.08 s|cannot be read"):
        generate_one(model, Path("x"), audio, tmp_path / "o.mp4", settings, 1, "sad")
    assert not (tmp_path / "o.mp4").exists()


def test_08_the_shortest_audio_works_and_video_is_not_shorter(model, settings, tmp_path, any_portrait):
    """The official video ends a frame before the sound."""
    for seconds in (0.08, 0.2, 0.24):
        audio = write_wav(tmp_path / "a.wav", seconds)
        generate_one(model, Path("x"), audio, tmp_path / "o.mp4", settings, 1, "sad")
        assert probe(tmp_path / "o.mp4").num_frames == 2 * int(seconds / 0.08 + 1e-6)


@pytest.mark.parametrize("overlap", [4, 5, -1])
def test_09_windows_that_make_no_progress_are_refused(overlap):
    with pytest.raises(DicetalkError, match="overlap"):
        WindowPlan(4, overlap, 1, ring=True)


@torch.no_grad()
def test_10_a_forward_pass_leaves_the_callers_conditions_alone(model):
    unet = model.pipeline.unet
    inputs = {
        "sample": torch.randn(1, 3, 16, 4, 4),
        "timestep": torch.tensor(0.5),
        "encoder_hidden_states": torch.randn(1, 1, 16),
        "added_time_ids": torch.tensor([[12.5, 8.0, 16.0]]),
        "audio_tokens": torch.randn(1, 3, 3, 16),
        "emotion_tokens": torch.randn(1, 1, 2, 16),
        "face_mask": torch.rand(1, 1, 32, 32),
        "pose_feature": torch.randn(1, 32, 4, 4),
    }
    before = {name: value.clone() for name, value in inputs.items()}
    first, second = unet(**inputs).sample, unet(**inputs).sample
    assert torch.equal(first, second)
    assert all(torch.equal(inputs[name], value) for name, value in before.items())


def test_11_the_mask_of_each_level_has_its_height_and_width(model):
    """448 x 1152 pixels: the level of 7 x 18 was read as 6 x 21."""
    mask = torch.zeros(1, 1, 448, 1152)
    mask[..., 300:, :400] = 1
    levels = model.pipeline.unet.level_masks(mask, 56, 144, num_levels=4)
    assert set(levels) == {56 * 144, 28 * 72, 14 * 36, 7 * 18}
    level = levels[7 * 18].reshape(7, 18)
    assert (level[5:, :6] > 0.5).all() and (level[:4].abs() < 0.1).all() and (level[:, 8:].abs() < 0.1).all()


def test_12_a_portrait_is_never_stretched(shared_dir, tmp_path):
    """The official resize rounds each side to a multiple of 64 on its own; ours crops a square first."""
    from PIL import Image

    width, height = model_size(600, 512)
    assert abs(width / height - 600 / 512) > 0.04
    picture = Image.open(shared_dir / "media/scikit-image__astronaut.png").convert("RGB")
    square = read_portrait(shared_dir / "media/scikit-image__astronaut.png", 64, 0.35, 1.1, 0.5)
    wide = Image.new("RGB", (600, 512))
    wide.paste(picture, (44, 0))
    wide.save(tmp_path / "wide.png")
    portrait = read_portrait(tmp_path / "wide.png", 64, 0.35, 1.1, 0.5)
    ratios = [item.mask_box[2] / item.mask_box[3] for item in (square, portrait)]
    assert ratios[0] == pytest.approx(ratios[1], abs=0.08)


def denoise_and_watch(model, dtype):
    """Run two steps of two windows; returns dtypes and values of UNet timesteps, Euler steps, latents."""
    pipeline = model.pipeline
    seen = {"timesteps": [], "steps": 0, "latents": []}
    hook = pipeline.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen["timesteps"].append(kwargs["timestep"]), with_kwargs=True
    )
    step = pipeline.scheduler.step

    def counted(*args, **kwargs):
        seen["steps"] += 1
        return step(*args, **kwargs)

    def keep(pipe, number, timestep, tensors):
        seen["latents"].append(tensors["latents"])
        return tensors

    pipeline.scheduler.step = counted
    pipeline.to(dtype)
    try:
        pipeline(
            torch.zeros(1, 3, 32, 32),
            torch.zeros(8, 10, 1, 6),
            torch.zeros(12),
            torch.ones(1, 1, 32, 32),
            num_inference_steps=2,
            windows=WindowPlan(4, 0, 1, ring=True),
            identity_scale=1.0,
            audio_scale=1.0,
            emotion_scale=1.0,
            max_batch=1,
            output_type="latent",
            callback_on_step_end=keep,
        )
    finally:
        hook.remove()
        del pipeline.scheduler.step
        pipeline.to(torch.float32)
    return seen


def test_13_one_euler_step_per_step_with_exact_timesteps(model):
    """Not one per window, and neither the timestep nor its index goes through half precision."""
    seen = denoise_and_watch(model, torch.bfloat16)
    assert seen["steps"] == 2 and len(seen["timesteps"]) > 2
    sigmas = model.pipeline.scheduler.sigmas
    for timestep in seen["timesteps"]:
        assert timestep.dtype == torch.float32
        assert min(abs(float(timestep) - 0.25 * float(s.log())) for s in sigmas[:2]) < 1e-6


def test_14_latents_stay_in_single_precision(model):
    """At sigma 700 neighbouring float16 numbers are 0.5 apart, more than the picture's own size."""
    assert float(torch.tensor(700.0).half().nextafter(torch.tensor(1e4).half())) - 700 == 0.5
    seen = denoise_and_watch(model, torch.bfloat16)
    assert all(latents.dtype == torch.float32 for latents in seen["latents"])
    assert not torch.equal(seen["latents"][0], seen["latents"][0].bfloat16().float())


def test_15_the_sample_rate_of_a_sound_matters(tmp_path):
    slow, fast = (write_wav(tmp_path / f"{rate}.wav", 8000 / rate, rate) for rate in (8_000, 16_000))
    assert len(read_audio(slow)) == 2 * len(read_audio(fast)) == 16_000


def test_15_a_failed_run_leaves_no_file_and_names_none(model, settings, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DicetalkError, match=r"text\.png"):
        generate_one(
            model,
            tmp_path / "text.png",
            write_wav(tmp_path / "a.wav", 1),
            tmp_path / "o.mp4",
            settings,
            1,
            "sad",
        )
    assert not (tmp_path / "o.mp4").exists()
