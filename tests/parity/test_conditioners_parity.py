"""Audio projection, emotion model, discriminator and pose guider equal the official modules."""

from __future__ import annotations

import pytest
import torch
from golden_vectors import load_vectors
from hashed_tensors import fill, hashed

from dicetalk.models.discriminator import EmotionDiscriminator
from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.projection import AudioProjection

EMOTION_CASES = ["retrieval_true", "retrieval_true_masked", "retrieval_false", "retrieval_false_masked"]


def small_emotion_model(config: dict) -> EmotionModel:
    return EmotionModel(
        prior_dim=config["prior_dim"],
        dim=config["width"],
        num_codes=config["bank"],
        num_tokens=config["tokens"],
        num_heads=config["heads"],
        hidden_dim=config["intermediate_dim"],
        classifier_in_channels=config["classifier_input"],
    ).eval()


@pytest.fixture(scope="module")
def emotion(vectors):
    golden = vectors("emotion_small")
    model = small_emotion_model(golden.meta["config"])
    model.load_state_dict(golden.weights())
    return model, golden


@pytest.mark.parametrize("case", EMOTION_CASES)
def test_emotion_model(emotion, close, case):
    model, golden = emotion
    prior = golden["in.prompts"].flatten(2).requires_grad_()
    mask = golden["in.drop_mask"].flatten(1).reshape(prior.shape[:2]) if case.endswith("masked") else None
    model.zero_grad(set_to_none=True)
    output = model(prior, mask, retrieval=case.startswith("retrieval_true"))
    loss = (output.tokens * golden["in.loss_weight"]).sum() + output.vq_loss
    loss.backward()

    close(output.tokens, golden[f"out.{case}.tokens"])
    close(output.vq_loss.reshape(1), golden[f"out.{case}.vq_loss"])
    close(loss.reshape(1), golden[f"out.{case}.loss"])
    expected = golden.starting_with(f"grad.{case}.")
    close(prior.grad.reshape(expected["input"].shape), expected.pop("input"))
    actual = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert set(actual) == set(expected)
    for name, gradient in expected.items():
        close(actual[name], gradient)
    if case.startswith("retrieval_true"):
        assert torch.equal(output.indices.reshape(-1, 1), golden["out.codebook.indices"])


def test_emotion_bank_and_attention_weights(emotion, close):
    model, golden = emotion
    code, vq_loss, indices = model.codebook(golden["in.prompts"].flatten(2))
    close(code, golden["out.codebook.quantized"].flatten(2))
    close(vq_loss.reshape(1), golden["out.codebook.vq_loss"])
    assert torch.equal(indices.reshape(-1, 1), golden["out.codebook.indices"])
    weights = model.attention.weights(golden["out.single.emo_linear"][0], golden["out.single.kv_tokens"][0])
    close(weights, golden["out.single.attn_weights"][0])


@pytest.mark.parametrize("retrieval", [True, False])
def test_emotion_null_tokens_and_single_prior(emotion, close, retrieval):
    model, golden = emotion
    case = f"retrieval_{str(retrieval).lower()}"
    close(model.null_tokens(retrieval), golden[f"out.uncond.{case}"])
    single = model(golden["in.prompts"].flatten(2)[:1, :1], retrieval=retrieval).tokens
    close(single, golden[f"out.single.{case}"])


def test_gradient_to_bank_changes_gradients_only(emotion):
    model, golden = emotion
    prior = golden["in.prompts"].flatten(2)
    model.zero_grad(set_to_none=True)
    tokens = model(prior, gradient_to_bank=True).tokens
    assert torch.equal(tokens, model(prior).tokens)
    tokens.square().sum().backward()
    assert model.codebook.codebook.weight.grad.abs().max() > 0


def test_discriminator(vectors, close):
    golden = vectors("classifier")
    config = golden.meta["config"]
    model = EmotionDiscriminator(config["input_dim"], config["num_classes"], config["dropout"]).eval()
    model.load_state_dict({key.removeprefix("classifier."): value for key, value in golden.weights().items()})
    close(model(golden["in.features"]), golden["out.logits"])
    close(model(golden["in.features_1x1"]), golden["out.logits_1x1"])


def test_audio_projection(vectors, close):
    golden = vectors("audio_proj")
    config = golden.meta["config"]
    model = AudioProjection(
        config["seq_len"],
        config["blocks"],
        config["channels"],
        config["intermediate_dim"],
        config["context_tokens"],
        config["output_dim"],
    )
    model.load_state_dict(golden.weights())
    audio = golden["in.audio"].requires_grad_()
    tokens = model(audio)
    (tokens * golden["in.loss_weight"]).sum().backward()
    close(tokens, golden["out.tokens"])
    close(model.null_tokens(), golden["out.tokens_zero_input"])
    close(audio.grad, golden["grad.input"])
    for name, weight in model.named_parameters():
        close(weight.grad, golden[f"grad.{name}"])


def test_pose_guider(vectors, close):
    golden = vectors("pose_guider")
    model = PoseGuider(320, 3, tuple(golden.meta["config"]["block_out_channels"]))
    assert not model(torch.rand(1, 1, 16, 16)).any()  # starts as "no guidance"
    model.load_state_dict(golden.weights())
    frames = golden["in.mask_video"].transpose(1, 2)[0]
    close(model(frames), golden["out.features"].transpose(1, 2)[0])


@pytest.mark.slow
@torch.no_grad()
def test_fullsize_conditioners(close):
    reference = load_vectors("fullsize_conditioners")
    emotion = fill(EmotionModel().eval(), 101)
    for retrieval in (True, False):
        case = f"retrieval_{str(retrieval).lower()}"
        close(emotion.null_tokens(retrieval)[0, 0, ::4], reference[f"out.emo_uncond.{case}"])
    close(emotion.classifier(reference["in.classifier_features"]), reference["out.classifier_logits"])
    audio = fill(AudioProjection(), 102)
    windows = hashed("full.audio", (1, 2, 10, 5, 384), 103, 1.7)
    close(audio(windows)[0, :, ::4], reference["out.audio.tokens"])
    close(audio.null_tokens()[0, :, ::4], reference["out.audio.tokens_zero"])


@pytest.mark.slow
@torch.no_grad()
def test_fullsize_emotion_model_on_the_released_priors(shared_dir, close):
    reference = load_vectors("fullsize_conditioners", shared_dir / "reference" / "vectors")
    emotion = fill(EmotionModel().eval(), 101)
    priors = reference["in.priors"][:, None]
    for retrieval in (True, False):
        case = f"retrieval_{str(retrieval).lower()}"
        close(emotion(priors, retrieval=retrieval).tokens[:, 0, ::4], reference[f"out.emo.{case}"])
    _, vq_loss, indices = emotion.codebook(priors)
    assert torch.equal(indices, reference["out.codebook.indices"])
    close(vq_loss.reshape(1), reference["out.codebook.vq_loss"])
