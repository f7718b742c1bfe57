"""A corpus is added as CONTRIBUTING.md says, mixed with others, and trained with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from contributed import copy_with, run, touch, write_params

from dicetalk.labels import CLASSES

INDEX: dict[str, Any] = {
    "actors": {"kind": "crema", "root": "raw/crema", "test_identities": ["crema1002"]},
    "mead": {"kind": "mead", "root": "raw/mead", "views": ["front"], "test_identities": ["M005", "M007"]},
    "more_mead": {"kind": "mead", "root": "raw/more", "views": ["top"], "test_identities": 1},
    "talks": {"kind": "folder", "root": "raw/talks", "identity_folder": 1, "test_identities": 1},
}
CREMA = {"ANG_LO", "ANG_MD", "ANG_HI", "DIS_XX", "FEA_XX", "HAP_XX", "NEU_XX", "SAD_XX"}

PREPARE = """
import sys
from pathlib import Path
import fake_corpus
from dicetalk.config import load_params
from dicetalk.data.index_table import read_index
from stages import corpora, index
corpora.main()
for name in load_params().corpora:
    sys.argv = ["index", "--dataset", name]
    index.main()
    fake_corpus.write_encoded(Path("data/encoded", name), read_index(Path(f"data/index/{name}.parquet"))[0])
"""
TRAIN = """
import json
from stages import train_embedder
train_embedder.main()
from dicetalk.data.dataset import DiffusionBatches, EncodedClips
clips = EncodedClips([Path("data/encoded", name) for name in load_params().corpora], "train", min_frames=8)
batches = DiffusionBatches(clips, num_frames=4, frame_stride=2, window_tokens=10, image_embedding_stride=5,
    size_px=64, emotional_fraction=0.5, other_clip_reference_fraction=0.5, seed=1)
batch = batches.draw(0, 200)
sets = clips.table["set"].to_numpy()[batch.rows.numpy()].tolist()
print("DRAWN", json.dumps([sets, batch.classes.tolist()]))
"""
LEAVE_OUT = """
Path("models").rename("first")
Path("fewer.yaml").replace("params.yaml")
corpora.main()
train_embedder.main()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A copy of the project with the new corpus, trained with it and then without it and another."""
    folder = tmp_path_factory.mktemp("project")
    changed = copy_with(repository, "Add a corpus", folder)
    assert changed == {"dicetalk/data/corpora/crema.py", "dicetalk/data/corpora/table.py"}
    assert (repository / "dvc.yaml").read_bytes() == (folder / "dvc.yaml").read_bytes()
    write_params(repository, folder / "params.yaml", INDEX)
    fewer = {name: INDEX[name] for name in ("mead", "talks")}
    write_params(repository, folder / "fewer.yaml", fewer)
    touch(
        folder / "raw",
        *(f"crema/VideoFlash/{actor}_IEO_{kind}.flv" for actor in (1001, 1002) for kind in CREMA),
    )
    for root, view, people in (
        ("mead", "front", ("M003", "M005", "M007", "M009")),
        ("more", "top", ("W009", "W011")),
    ):
        for person in people:
            for emotion, level in CLASSES:
                touch(folder / "raw" / root, f"{person}/video/{view}/{emotion}/level_{level}/001.mp4")
    touch(folder / "raw/talks", "ann/1.mp4", "bob/2.mov")
    (folder / "said.txt").write_text(run(folder, PREPARE + TRAIN + LEAVE_OUT))
    return folder


def test_a_new_corpus_is_its_file_and_a_row_and_trains_with_the_others(project: Path) -> None:
    rows = pd.read_parquet(project / "data/index/actors.parquet").set_index("clip_id")
    assert len(rows) == 2 * len(CREMA)
    assert rows.loc["1001_IEO_ANG_HI", ["identity", "emotion", "level"]].tolist() == ["crema1001", "angry", 3]
    assert set(rows["dataset"]) == {"actors"} and rows["split"].value_counts().to_dict() == {
        "train": 8,
        "test": 8,
    }

    # The stage trained on all emotional corpora and on no other.
    trained = pd.read_parquet(project / "first/embedder/embeddings.parquet")
    assert len(trained) == 2 * len(CREMA) + 6 * len(CLASSES)
    assert {name[:1] for name in trained["identity"]} == {"c", "M", "W"}

    # And the batches of the last training mix them all; clips of the regular corpus have no class.
    [drawn] = re.findall("DRAWN (.*)", (project / "said.txt").read_text())
    sets, classes = json.loads(drawn)
    assert set(sets) == set(INDEX)
    assert {name for name, label in zip(sets, classes, strict=True) if label < 0} == {"talks"}
    assert 70 < sets.count("talks") < 130  # of 200; standard deviation 7


def test_a_corpus_that_index_no_longer_names_is_not_read(project: Path) -> None:
    """Its folder still lies in `data/encoded`."""
    assert (project / "data/encoded/actors").is_dir()
    in_use = json.loads((project / "data/corpora.json").read_text())
    assert in_use == {"emotional": ["mead"], "regular": ["talks"]}
    trained = pd.read_parquet(project / "models/embedder/embeddings.parquet")
    assert {name[:1] for name in trained["identity"]} == {"M"}
