"""Parameter files: the profiles load, and what is wrong is named by its path."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from dicetalk.config import Params, config_hash, load_params, parse_params
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.protocol import load_protocol
from dicetalk.weights import get


@pytest.fixture(scope="module")
def demo(repository: Path) -> dict[str, Any]:
    return load_params(repository / "profiles/demo.yaml").model_dump()


def changed(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `values` with the dotted `path` set to `value`."""
    values = copy.deepcopy(values)
    *sections, name = path.split(".")
    target = values
    for section in sections:
        target = target[section]
    target[name] = value
    return values


@pytest.mark.parametrize("profile", ["smoke", "demo", "paper"])
def test_profiles_are_valid_and_named_after_their_file(repository: Path, profile: str) -> None:
    params = load_params(repository / f"profiles/{profile}.yaml")
    assert params.profile == profile
    assert load_protocol(params.evaluate.protocol).name == params.evaluate.protocol
    assert get(params.backbone.weights).files
    model_fps = params.preprocess.fps / params.train_diffusion.frame_stride
    clip_seconds = params.train_diffusion.num_frames / model_fps
    assert params.preprocess.min_seconds >= clip_seconds or params.synthesize is not None


def test_the_committed_parameters_are_the_demo_profile(repository: Path) -> None:
    assert (repository / "params.yaml").read_bytes() == (repository / "profiles/demo.yaml").read_bytes()


def test_paper_profile_holds_what_is_stated_or_released(repository: Path) -> None:
    params = load_params(repository / "profiles/paper.yaml")
    assert params.synthesize is None
    assert (params.preprocess.size_px, params.preprocess.fps, params.preprocess.mask_area) == (512, 25.0, 1.1)
    assert set(params.train_diffusion.condition_dropout.model_dump().values()) == {0.05}
    assert params.train_diffusion.emotional_fraction == 0.5
    assert (params.train_diffusion.num_frames, params.train_diffusion.frame_stride) == (25, 2)
    assert (params.learn_bank.num_codes, params.learn_bank.dim, params.learn_bank.num_tokens) == (
        64,
        1024,
        32,
    )
    assert params.train_embedder.embedding_dim == 256
    generate = params.generate
    assert (generate.sigma_min, generate.sigma_max, generate.num_inference_steps) == (0.002, 700.0, 25)
    assert (generate.identity_scale, generate.audio_scale, generate.emotion_scale) == (3.0, 6.0, 6.0)
    assert params.index["mead"].test_identities == "paper"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train_difusion", {}, "train_difusion: unknown parameter; did you mean 'train_diffusion'?"),
        (
            "synthesize.mead.num_idents",
            3,
            "synthesize.mead.num_idents: unknown parameter; did you mean 'num_iden",
        ),
        (
            "train_diffusion.condition_dropout.audoi",
            0.1,
            "condition_dropout.audoi: unknown parameter; did you mean 'au",
        ),
        (
            "train_diffusion.training.lr",
            "1e-4",
            "train_diffusion.training.lr: should be a valid number, found '1e-4'",
        ),
        (
            "train_diffusion.sigma_log_mean",
            float("nan"),
            "sigma_log_mean: should be a finite number, found nan",
        ),
        ("preprocess.size_px", 64.0, "preprocess.size_px: should be a valid integer, found 64.0"),
        ("generate.max_clips_per_mode", {"Q": 1}, "generate.max_clips_per_mode.Q: should be 'P', 'V' or 'A'"),
        (
            "index.mead.test_identities",
            1.5,
            "index.mead.test_identities: should be a valid list or should be a valid",
        ),
        (
            "index.mead.test_identities",
            ["M003", 9],
            "index.mead.test_identities.1: should be a valid string, found 9",
        ),
        ("synthesize", 3, "synthesize: should be a section with keys, found 3"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(demo: dict, path: str, value: Any, message: str) -> None:
    with pytest.raises(DicetalkError) as caught:
        parse_params(changed(demo, path, value), "params.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "params.yaml has wrong parameters:"
    assert len(lines) == 2, "one wrong key, one line"
    assert message in lines[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluate.protocol": "papr"}, "evaluate.protocol: unknown, expected one of demo, eat, mead, "),
        ({"generate.modes": []}, "generate.modes: should name one or more of P, V and A, each once,"),
        ({"generate.modes": ["P", "P"]}, "generate.modes: should name one or more"),
        (
            {"generate.guidance_sigmas": [20.0, 0.5]},
            "generate.guidance_sigmas: should be lowest and highest, found 20",
        ),
        ({"generate.sigma_min": 50.0}, "generate.sigma_min: 50 should be below sigma_max, 40"),
        ({"generate.window_overlap": 8}, "generate.window_overlap: should be below 8, train_diffusion.num_"),
        ({"generate.num_frames": 15}, "30 frames at 25 fps; protocol demo measures 32, so set it to 16 or"),
        ({"compute.train_diffusion.num_processes": 5}, "train_diffusion.training.batch_size: 12, the batch"),
        ({"compute.learn_bank.num_processes": 3}, "learn_bank.training.batch_size: 64, the batch of all"),
        ({"compute.evaluators.num_processes": 2}, "compute.evaluators.num_processes: these small networks"),
        (
            {"compute.train_diffusion.fully_sharded": True, "compute.train_diffusion.num_processes": 1},
            "compute.train_diffusion.fully_sharded: divides weights among processes, of which",
        ),
        ({"preprocess.fps": 30.0}, "preprocess.fps: speech features and metrics are made for 25, found 30"),
        ({"preprocess.sample_rate_hz": 44100}, "preprocess.sample_rate_hz: speech features and metrics are"),
        ({"preprocess.min_seconds": 31.0}, "preprocess.min_seconds: 31 is above max_seconds, so no clip is"),
        (
            {"preprocess.max_seconds": 0.5, "preprocess.min_seconds": 0.1},
            "preprocess.max_seconds: no clip is as long as a training window of train_diffusion, 0.60 s",
        ),
        ({"train_embedder.num_heads": 5}, "train_embedder.hidden_dim: 96 is no multiple of num_heads, 5"),
        ({"learn_bank.num_heads": 5}, "learn_bank.dim: 64 is no multiple of num_heads, 5"),
        ({"train_diffusion.clip_prior_fraction": 1.5}, "clip_prior_fraction: should be less than or equal"),
        ({"train_diffusion.condition_dropout.all": -0.1}, "condition_dropout.all: should be greater than or"),
        ({"preprocess.min_face_score": 2.0}, "preprocess.min_face_score: should be less than or equal to 1"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(
    demo: dict, changes: dict[str, Any], message: str
) -> None:
    values = demo
    for path, value in changes.items():
        values = changed(values, path, value)
    with pytest.raises(DicetalkError) as caught:
        parse_params(values, "params.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and message in lines[1]


@pytest.mark.parametrize("name", ["x;touch y;", "../mead", "Mead", "mead-earlier", "2", ""])
def test_a_corpus_has_a_name_that_files_can_have(demo: dict, name: str) -> None:
    values = changed(demo, "index", demo["index"] | {name: demo["index"]["mead"]})
    with pytest.raises(
        DicetalkError, match=f"index.{re.escape(name)}: names files and folders, so it should"
    ):
        parse_params(values, "params.yaml")


def test_there_is_a_corpus(demo: dict) -> None:
    with pytest.raises(DicetalkError, match="index: names no corpus"):
        parse_params(changed(demo, "index", {}), "params.yaml")


def test_parameters_from_before_corpora_had_kinds_say_what_to_add(demo: dict) -> None:
    values = copy.deepcopy(demo)
    for section in values["index"].values():
        del section["kind"]
    with pytest.raises(DicetalkError) as caught:
        parse_params(values, "params.yaml")
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["index.mead.kind", "index.hdtf.kind"]
    assert all(
        "`kind: mead`" in line and "`kind: folder` for what was called extra" in line for line in lines
    )


def test_every_wrong_key_is_reported_at_once(demo: dict) -> None:
    values = changed(changed(demo, "preprocess.fps", -1.0), "evaluate.sed", 1)
    del values["report"]
    with pytest.raises(DicetalkError) as caught:
        parse_params(values, "params.yaml")
    found = {line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]}
    assert found == {"preprocess.fps", "evaluate.sed", "report"}


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(DicetalkError, match="make profile P=demo"):
        load_params(tmp_path / "params.yaml")


def test_broken_yaml_and_lists_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    for text, message in [("a: [", "not valid YAML"), ("- 1", "must hold sections")]:
        file.write_text(text)
        with pytest.raises(DicetalkError, match=message):
            load_params(file)


def test_parameters_cannot_be_changed_by_accident(demo: dict) -> None:
    params = Params.model_validate(demo)
    with pytest.raises(ValueError, match="frozen"):
        params.profile = "other"  # type: ignore[misc]


def test_the_hash_follows_values_not_spelling(demo: dict) -> None:
    params = Params.model_validate(demo)
    again = Params.model_validate(copy.deepcopy(demo))
    assert config_hash(params.encode) == config_hash(again.encode)
    assert config_hash(params.encode) != config_hash(params.encode, params.preprocess)
    other = Params.model_validate(changed(demo, "encode.batch_frames", 1))
    assert config_hash(params.encode) != config_hash(other.encode)
