from __future__ import annotations

import torch

from dicetalk.evaluation.gradients import GradientEmotionNet, oriented_gradients


def test_colour_and_contrast_do_not_count_and_direction_does():
    torch.manual_seed(0)
    grey = torch.rand(1, 1, 64, 64).expand(1, 3, 64, 64) - 0.5
    # Red and blue of equal brightness: green makes up for what red adds.
    tinted = grey + torch.tensor([0.587, -0.299, 0.0])[:, None, None]
    seen = oriented_gradients(grey)
    assert seen.shape == (1, 64, 32)
    torch.testing.assert_close(oriented_gradients(tinted), seen, rtol=0, atol=1e-3)
    torch.testing.assert_close(oriented_gradients(grey * 2), seen, rtol=0, atol=0.1)
    assert (oriented_gradients(grey.flip(-1)) - seen).abs().mean() > 0.3


def test_a_ramp_lies_in_its_own_direction():
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    middle = oriented_gradients(ramp)[0, 27].view(8, 4).mean(dim=1)  # directions x cells
    assert middle.argmax() == 0  # brighter to the right
    assert middle[4] == middle.min()


def test_a_frame_is_judged_independently_of_the_others():
    torch.manual_seed(0)
    network = GradientEmotionNet().eval()
    frames = torch.rand(5, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        logits, strengths = network(frames)
        alone_logits, alone_strengths = network(frames[2:3])
    assert logits.shape == (5, 8) and strengths.shape == (5,)
    torch.testing.assert_close(alone_logits, logits[2:3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone_strengths, strengths[2:3], rtol=1e-4, atol=1e-5)
