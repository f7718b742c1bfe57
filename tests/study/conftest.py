"""A small study that was built once."""

from __future__ import annotations

import pytest
from toy_study import Study, build, write_systems

from dicetalk.study.design import Size


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three systems, four clips, six participants, 6 ratings + 3 comparisons + 2 checks each."""
    root = tmp_path_factory.mktemp("study")
    folders = write_systems(root, 4)
    key = build(root, folders, Size(6, 6, 3, 2))
    return Study(root, folders, root / "study" / "index.html", root / "key.json", key)
