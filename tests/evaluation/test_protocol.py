from __future__ import annotations

import pytest

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.protocol import FOLDER, load_protocol
from dicetalk.files import sha256_file

CONTRACT = {"fid", "fvd", "fd_image", "fd_video", "sync_c", "sync_d", "emotion_accuracy", "emo_score"}
CONTRACT |= {"emo_score_neutral", "emo_score_non_neutral", "f_sim", "lmd"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_protocol_measures_or_explains_every_metric(path):
    protocol = load_protocol(path.stem)
    assert protocol.sha256 == sha256_file(path)
    measured, left_out = set(protocol.definition.networks), set(protocol.definition.left_out)
    assert not measured & left_out
    assert measured | left_out >= CONTRACT


def test_unknown_protocol_names_the_known_ones():
    with pytest.raises(DicetalkError, match="demo"):
        load_protocol("dmeo")


def test_unknown_key_is_refused(tmp_path):
    text = (FOLDER / "demo.yaml").read_text().replace("num_frames", "frames")
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(DicetalkError, match="not a valid protocol"):
        load_protocol("odd", tmp_path)
