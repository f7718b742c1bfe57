from __future__ import annotations

import pickle

import pytest
import torch

from dicetalk.errors import DicetalkError
from dicetalk.models.checkpoints import (
    OFFICIAL_FILES,
    check_values,
    export_official,
    import_official,
    load_strictly,
    read_state_dict,
)
from dicetalk.models.projection import AudioProjection


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


class Payload:
    def __reduce__(self):
        return print, ("code from a checkpoint ran",)


def test_files_that_run_code_are_refused(tmp_path, capsys):
    path = tmp_path / "audio_linear.pth"
    torch.save({"proj1.weight": Payload()}, path)
    with pytest.raises(DicetalkError, match="audio_linear.pth"):
        read_state_dict(path)
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(DicetalkError, match="audio_linear.pth"):
        read_state_dict(path)
    assert "ran" not in capsys.readouterr().out


def test_missing_foreign_and_broken_values_are_refused(tmp_path):
    with pytest.raises(DicetalkError, match="does not exist"):
        read_state_dict(tmp_path / "unet.pth")
    torch.save({"step": 3}, tmp_path / "unet.pth")
    with pytest.raises(DicetalkError, match="step is a int"):
        read_state_dict(tmp_path / "unet.pth")
    torch.save({"weight": torch.tensor([1.0, float("nan")])}, tmp_path / "unet.pth")
    with pytest.raises(DicetalkError, match="weight has NaN"):
        check_values(read_state_dict(tmp_path / "unet.pth"), "unet.pth")
