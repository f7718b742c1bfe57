"""What was measured is found again, unless its file was damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicetalk.evaluation.observations import Store


def flipped(content: bytes) -> bytes:
    place = content.index(np.arange(8.0).tobytes())  # within the numbers
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", [flipped, lambda content: content[:-30], lambda content: b""])
def test_a_damaged_observation_is_made_again(tmp_path: Path, damage) -> None:
    store = Store(tmp_path, "setting")
    seen = store.add({"landmarks": np.arange(8.0)}, {}, {"identity": "a"}, "clip")
    found = store.find("clip")
    assert found is not None and np.array_equal(found["landmarks"], np.arange(8.0))
    assert store.find("another clip") is None
    seen.path.write_bytes(damage(seen.path.read_bytes()))
    assert store.find("clip") is None
