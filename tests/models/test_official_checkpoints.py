from __future__ import annotations

import copy

import pytest
import torch

from dicetalk.errors import DicetalkError
from dicetalk.models.projection import AudioProjection
from dicetalk.models.state_files import load_strictly, read_state_dict
from dicetalk.release.official_files import OFFICIAL_FILES, export_official, import_official


def components(pipeline):
    return {name: getattr(pipeline, name) for name in OFFICIAL_FILES}


def test_exported_files_import_to_the_same_weights(pipeline, fresh_pipeline, tmp_path):
    paths = export_official(tmp_path, components(pipeline))
    assert sorted(path.name for path in paths) == sorted(OFFICIAL_FILES.values())
    for module in components(fresh_pipeline).values():
        for weight in module.parameters():
            torch.nn.init.zeros_(weight)
    import_official(tmp_path, components(fresh_pipeline))
    for name, module in components(fresh_pipeline).items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, getattr(pipeline, name).state_dict()[key])


@pytest.fixture
def projection():
    return AudioProjection(2, 1, 3, 4, 2, 4)


def test_wrong_names_and_shapes_are_named(projection):
    state = dict(projection.state_dict())
    missing = {key: value for key, value in state.items() if key != "proj2.bias"}
    with pytest.raises(DicetalkError, match=r"x\.pth lacks proj2\.bias"):
        load_strictly(projection, missing, "x.pth")
    with pytest.raises(DicetalkError, match=r"extra\.weight"):
        load_strictly(projection, {**state, "extra.weight": torch.zeros(1)}, "x.pth")
    with pytest.raises(DicetalkError, match=r"proj1\.weight has shape \(4, 8\).*\(4, 6\)"):
        load_strictly(projection, {**state, "proj1.weight": torch.zeros(4, 8)}, "x.pth")


def test_nothing_is_loaded_when_one_file_does_not_fit(pipeline, fresh_pipeline, tmp_path):
    export_official(tmp_path, components(pipeline))
    state = torch.load(tmp_path / "pose_guider.pth", weights_only=True)
    torch.save({**state, "conv_out.bias": torch.zeros(3)}, tmp_path / "pose_guider.pth")
    before = copy.deepcopy(fresh_pipeline.unet.state_dict())
    for weight in fresh_pipeline.unet.parameters():
        weight.data += 1
    with pytest.raises(DicetalkError, match=r"pose_guider.pth: conv_out.bias has shape \(3,\)"):
        import_official(tmp_path, components(fresh_pipeline))
    after = fresh_pipeline.unet.state_dict()
    assert all(torch.equal(after[key], value + 1) for key, value in before.items())


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_old_and_new_torch_load(projection, tmp_path, zipped):
    state = {key: torch.randn_like(value) for key, value in projection.state_dict().items()}
    torch.save(state, tmp_path / "audio_linear.pth", _use_new_zipfile_serialization=zipped)
    load_strictly(projection, read_state_dict(tmp_path / "audio_linear.pth"), "audio_linear.pth")
    assert all(torch.equal(projection.state_dict()[key], value) for key, value in state.items())


def test_released_memory_is_read_again(projection, tmp_path):
    """Giving pages back must not change what a file's tensors hold."""
    state = {"a": torch.randn(70_000), "b": torch.randn(70_000).half(), "c": torch.randn(3)}
    torch.save(state, tmp_path / "x.pth")
    read = read_state_dict(tmp_path / "x.pth")
    for name in state:
        assert torch.equal(read[name], state[name])
        read.release(name)
    assert all(torch.equal(read[name], state[name]) for name in state)
    torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    read = read_state_dict(tmp_path / "x.pth")  # in memory of its own, which release leaves alone
    read.release("a")
    assert torch.equal(read["a"], state["a"])


def test_precision_of_the_module_is_kept(projection, tmp_path):
    export_official(tmp_path, {"audio_projection": projection})
    half = copy.deepcopy(projection).half()
    for weight in half.parameters():
        torch.nn.init.zeros_(weight)
    import_official(tmp_path, {"audio_projection": half})
    assert torch.equal(half.proj1.weight, projection.proj1.weight.half())
