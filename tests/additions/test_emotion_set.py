"""An emotion set is added as CONTRIBUTING.md says and trained with."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from contributed import copy_with, run, touch, write_params
from safetensors.numpy import load_file

from dicetalk.labels import CLASSES

KEPT = ["angry", "disgusted", "fear", "happy", "neutral", "sad"]
PROGRAM = """
import json, sys
from pathlib import Path
import fake_corpus
from dicetalk.data.dataset import EmbedderBatches, EncodedClips
from dicetalk.data.index_table import read_index
from stages import corpora, index, priors, train_embedder
corpora.main()
sys.argv = ["index", "--dataset", "mead"]
index.main()
fake_corpus.write_encoded(Path("data/encoded/mead"), read_index(Path("data/index/mead.parquet"))[0])
train_embedder.main()
priors.main()

import numpy as np
from dicetalk.evaluation import session
from dicetalk.evaluation.networks import FrameEmotionNet
from dicetalk.report import build
from dicetalk.training.evaluator_objectives import EmotionObjective
from dicetalk.training.priors import label_codes
batches = EmbedderBatches(EncodedClips([Path("data/encoded/mead")], "train"), clip_frames=8, seed=0)
print("FOUND", json.dumps({
    "classes": sorted(set(batches.classes.tolist())),
    "drawn": sorted(set(batches.draw(0, 64).classes.tolist())),
    "emotions read from frames": FrameEmotionNet().head.out_features,
    "label codes": list(label_codes(24).shape),
}))
"""


def test_a_new_set_is_its_file_and_a_row_and_everything_follows(tmp_path: Path, repository: Path) -> None:
    changed = copy_with(repository, "Add an emotion set", tmp_path)
    assert changed == {"dicetalk/emotion_sets/basic.py", "dicetalk/emotion_sets/table.py"}
    mead = {"kind": "mead", "root": "raw", "views": ["front"], "test_identities": ["W009", "W011"]}
    write_params(repository, tmp_path / "params.yaml", {"mead": mead})
    for person in ("M003", "M005", "W009", "W011"):
        for emotion, level in CLASSES:  # MEAD has all of its own
            touch(tmp_path / "raw", f"{person}/video/front/{emotion}/level_{level}/001.mp4")

    said = run(tmp_path, PROGRAM)
    assert f"mead: {4 * 11} clips are of classes that the chosen emotion set lacks" in said
    index = pd.read_parquet(tmp_path / "data/index/mead.parquet")
    assert len(index) == 4 * 11 and sorted(index["emotion"].unique()) == KEPT and index["level"].max() == 2

    found = json.loads(said.partition("FOUND")[2])
    assert found == {
        "classes": list(range(11)),  # 5 x 2 + neutral
        "drawn": list(range(11)),
        "emotions read from frames": 6,
        "label codes": [11, 24],
    }
    priors = load_file(tmp_path / "models/priors.safetensors")
    assert set(priors) >= {"P/sad/2", "P/sad", "P/neutral/1"} and len(priors) == 11 + 6
    assert json.loads((tmp_path / "metrics/priors.json").read_text())["emotions"] == KEPT
