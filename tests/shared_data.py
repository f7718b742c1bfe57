"""Real clips, portraits and the uncut golden vectors: test data that is not part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("DICETALK_SHARED", REPOSITORY.parent / "shared"))
