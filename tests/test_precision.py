"""`mixed_precision: auto` is bfloat16 where the processor multiplies it itself, and float32 elsewhere."""

from __future__ import annotations

import pytest
import torch

from dicetalk.compute.precision import autocast, resolve_precision, training_attention


@pytest.mark.parametrize("setting", ["no", "bf16", "fp16"])
def test_a_choice_is_kept(setting: str):
    assert resolve_precision(setting) == setting


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"amx_bf16": True}, "bf16"), ({"amx_bf16": False, "avx512_bf16": True}, "no"), ({}, "no")],
)
def test_auto_follows_the_processor(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision("auto") == expected


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "no")])
def test_auto_asks_a_gpu_for_native_support(monkeypatch, supported, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert resolve_precision("auto") == expected


@pytest.mark.parametrize(("setting", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_multiplies_in_the_setting(setting: str, dtype: torch.dtype):
    with autocast(torch.device("cpu"), setting):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_attention_is_plain_in_training_steps_on_a_cpu_alone_even_if_one_fails():
    fused = torch.backends.cuda.flash_sdp_enabled  # the switch of all devices
    assert fused()
    with training_attention(torch.device("cuda")):
        assert fused()
    with pytest.raises(RuntimeError, match="failed"), training_attention(torch.device("cpu")):
        assert not fused()
        raise RuntimeError("failed")
    assert fused()
