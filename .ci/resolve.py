"""Check by a dry run that every Python version this project names can install what constraints.txt pins.

Reads metadata only, through `uv pip compile`: nothing is installed and the interpreters need not be there.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# No wheels, but nothing to compile either. Of all else a wheel has to exist for the version.
SOURCE_ONLY = ("antlr4-python3-runtime", "yattag")


def claimed_versions() -> list[str]:
    """Return the minor versions among the classifiers of pyproject.toml, e.g. `3.11`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return re.findall(r"Programming Language :: Python :: (3\.\d+)", "\n".join(project["classifiers"]))


def problem(version: str, pins: set[str]) -> str | None:
    """Return why a version cannot be installed as pinned, or nothing."""
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--all-extras"]
    command += ["--python-version", version, "--python-platform", "linux", "--constraint", "constraints.txt"]
    command += ["--only-binary", ":all:", *(f"--no-binary={name}" for name in SOURCE_ONLY), "pyproject.toml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip()
    missing = sorted({line for line in done.stdout.splitlines() if not line.startswith("#")} - pins)
    return f"add to constraints.txt: {' '.join(missing)}" if missing else None


def main() -> None:
    """Print one line per version; exit with 1 when one of them does not resolve."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    problems = {version: problem(version, set(lines)) for version in claimed_versions()}
    for version, text in problems.items():
        print(f"Python {version}: {text or 'resolves'}")
    sys.exit(any(problems.values()))


if __name__ == "__main__":
    main()
