from __future__ import annotations

import pickle

import numpy as np
import pytest
import stand_ins
import torch
from oracles import oracle

from dicetalk import weights
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.published.emo_affectnet import EmoAffectNet
from dicetalk.evaluation.published.emotion_fan import EmotionFan
from dicetalk.evaluation.published.face_api import FaceApiExpression, FaceApiIdentity, read_manifest
from dicetalk.evaluation.published.i3d import FvdI3D
from dicetalk.evaluation.published.inception import FidInception
from dicetalk.evaluation.published.load import load_published
from dicetalk.evaluation.published.lpips import Lpips
from dicetalk.evaluation.published.syncnet_v2 import SyncNetV2


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest difference relative to the spread of the reference."""
    assert ours.shape == theirs.shape and theirs.std() > 0
    return ((ours - theirs).abs().max() / theirs.std()).item()


def test_syncnet_equals_the_public_implementation():
    reference = stand_ins.randomise(oracle("syncnet_python", "SyncNetModel").S())
    ours = SyncNetV2().eval()
    ours.load_state_dict(reference.state_dict())
    assert len(reference.state_dict()) == 102
    lips, sound = torch.rand(1, 3, 5, 224, 224) * 255, torch.randn(2, 1, 13, 20) * 10
    assert difference(ours.embed_video(lips), reference.forward_lip(lips)) < 1e-4
    assert difference(ours.embed_audio(sound), reference.forward_aud(sound)) < 1e-4


def test_i3d_equals_the_public_implementation():
    """13 frames: paddings are odd on the way."""
    reference = stand_ins.randomise(oracle("cdfvd", "third_party.i3d.pytorch_i3d").InceptionI3d(400))
    ours = FvdI3D().eval()
    ours.load_state_dict(reference.state_dict())
    clip = torch.rand(1, 3, 13, 224, 224) * 2 - 1
    assert difference(ours(clip), reference(clip)) < 1e-4


def test_inception_equals_the_public_implementation(tmp_path):
    """The reference reads the weights from a file of the published names and wants 8-bit images of 299 px."""
    state = stand_ins.randomise(FidInception()).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    module = oracle("torch_fidelity", "feature_extractor_inceptionv3")
    path = str(tmp_path / "weights.pth")
    reference = module.FeatureExtractorInceptionV3("any", ["2048"], feature_extractor_weights_path=path)
    ours = FidInception().eval()
    ours.load_state_dict(state)
    images = torch.randint(0, 256, (2, 3, 299, 299), dtype=torch.uint8)
    (expected,) = reference.eval()(images)
    assert difference(ours((images.float() - 128) / 128), expected) < 1e-4


@pytest.mark.parametrize("name", ["emo_affectnet", "emotion_fan", "arcface_r50"])
def test_files_with_the_published_names_load(name, tmp_path, monkeypatch):
    entry = {"emotion_fan": "emotion-fan-mead"}.get(name, name.replace("_", "-"))
    state = stand_ins.fill(getattr(stand_ins, name)())
    if name == "emotion_fan":  # a training checkpoint of a parallel module
        state = {"epoch": 61, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save(state, tmp_path / entry)
    monkeypatch.setenv("DICETALK_WEIGHTS", str(tmp_path))
    network, digest = load_published(entry)
    assert len(digest) == 64 and not network.training
    size = 112 if name == "arcface_r50" else 224
    faces = torch.rand(2, 3, size, size)
    outputs = network.judge(network.features(faces)) if name == "emotion_fan" else network(faces)
    assert outputs.isfinite().all()


def test_another_file_under_the_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DICETALK_WEIGHTS", str(tmp_path))
    state = stand_ins.fill(stand_ins.emo_affectnet())
    state["fc2.weight"] = torch.zeros(8, 512)
    torch.save(state, tmp_path / "emo-affectnet")
    with pytest.raises(DicetalkError, match="(?s)does not fit emo-affectnet.*fc2"):
        load_published("emo-affectnet")


class Trap:
    """What a hostile weight file does when it is unpickled."""

    def __reduce__(self):
        return (open, ("/dev/null",))


@pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps({"state_dict": Trap()})])
def test_a_hostile_file_runs_nothing(content, tmp_path, monkeypatch):
    monkeypatch.setenv("DICETALK_WEIGHTS", str(tmp_path))
    (tmp_path / "arcface-r50").write_bytes(content)
    with pytest.raises(DicetalkError, match="plain PyTorch weights"):
        load_published("arcface-r50")


def test_attention_over_equal_frames_changes_nothing():
    network = stand_ins.randomise(EmotionFan())
    features = network.features(torch.rand(1, 3, 224, 224))
    one, three = network.judge(features), network.judge(features.repeat(3, 1))
    torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-5)


def test_emotion_fan_equals_the_formula_of_its_paper():
    network = stand_ins.randomise(EmotionFan())
    features = torch.rand(5, 512)
    alpha = torch.sigmoid(features @ network.alpha[0].weight.T + network.alpha[0].bias)
    video = sum(alpha[i] * features[i] for i in range(5)) / alpha.sum()
    both = [torch.cat([features[i], video]) for i in range(5)]
    beta = [torch.sigmoid(item @ network.beta[0].weight.T + network.beta[0].bias) for item in both]
    mean = sum(alpha[i] * both[i] for i in range(5)) / sum(alpha[i] * beta[i] for i in range(5))
    expected = mean @ network.pred_fc2.weight.T + network.pred_fc2.bias
    torch.testing.assert_close(network.judge(features), expected, rtol=1e-4, atol=1e-5)


def test_first_padding_of_emo_affectnet_is_tensorflows():
    """SAME of 224 px, kernel 7, stride 2: (112 - 1) * 2 + 7 - 224 = 5 pixels, the odd one at the end."""
    network = EmoAffectNet().eval()
    seen = []
    network.conv_layer_s2_same.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    faces = torch.zeros(1, 3, 224, 224)
    faces[..., 0, 0] = 100.0
    network.features(faces)
    assert seen[0].shape == (1, 3, 229, 229)
    assert seen[0].nonzero()[:, 2:].tolist() == [[2, 2]] * 3


def test_face_api_reads_its_manifest_to_the_last_byte(tmp_path):
    folder = installed("face-api-expression")
    FaceApiExpression().load_state_dict(read_manifest(folder, "face_expression_model"))
    FaceApiIdentity().load_state_dict(read_manifest(installed("face-api-identity"), "face_recognition_model"))
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with open(tmp_path / "face_expression_model.bin", "ab") as stream:
        stream.write(b"x")
    with pytest.raises(DicetalkError, match="manifest describes"):
        read_manifest(tmp_path, "face_expression_model")


def test_8_bit_weights_are_unpacked():
    """First value of the file by hand: byte x scale + minimum, in TensorFlow's order of axes."""
    folder = installed("face-api-expression")
    state = read_manifest(folder, "face_expression_model")
    raw = np.fromfile(folder / "face_expression_model.bin", np.uint8)
    scale, low = 0.0057930146946626555, -0.7125408074435067
    filters = state["dense0.conv0.filters"]
    assert filters.shape == (32, 3, 3, 3)
    assert filters[5, 2, 0, 1].item() == pytest.approx(raw[1 * 96 + 2 * 32 + 5] * scale + low)


def installed(name: str):
    try:
        return weights.resolve(name)
    except DicetalkError as error:
        pytest.skip(f"{name} cannot be had here: {error}")


def test_lpips_equals_torchmetrics(monkeypatch):
    """torchmetrics' own module, given the AlexNet that it would take from torchvision."""
    from torchmetrics.functional.image import lpips as reference

    ours = stand_ins.randomise(Lpips())
    assert {name: tuple(value.shape) for name, value in ours.state_dict().items()} == {
        "features.0.weight": (64, 3, 11, 11),
        "features.0.bias": (64,),
        "features.3.weight": (192, 64, 5, 5),
        "features.3.bias": (192,),
        "features.6.weight": (384, 192, 3, 3),
        "features.6.bias": (384,),
        "features.8.weight": (256, 384, 3, 3),
        "features.8.bias": (256,),
        "features.10.weight": (256, 256, 3, 3),
        "features.10.bias": (256,),
    }
    monkeypatch.setattr(reference, "_get_tv_model_features", lambda name, pretrained: ours.features)
    theirs = reference._LPIPS(net="alex").eval()
    first, second = torch.rand(2, 2, 3, 80, 96) * 2 - 1
    torch.testing.assert_close(ours(first, second), theirs(first, second).flatten(), rtol=1e-4, atol=1e-6)
    assert ours(first, first).abs().max() == 0
