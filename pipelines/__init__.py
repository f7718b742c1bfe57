"""Prefect flows around `dvc repro`: when the pipeline runs, and what happens when it fails."""

from __future__ import annotations

import os

# Prefect reads its settings on import. A first temporary server takes longer than the default 20 s.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
