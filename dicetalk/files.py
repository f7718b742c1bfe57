"""Writing files so that neither a killed process nor a power cut leaves half a result; content by hash."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dicetalk.errors import DicetalkError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_disk_full(error: Exception) -> bool:
    """Return whether an error, of Python, FFmpeg or safetensors, means that the disk or the quota is full."""
    in_words = any(f"(os error {number})" in str(error) for number in DISK_FULL)  # as Rust puts it
    return in_words or getattr(error, "errno", None) in DISK_FULL


@contextmanager
def explaining_full_disk() -> Iterator[None]:
    """Turn the error of a full disk into one that says that nothing finished is lost and what to do.

    Raises:
        DicetalkError: when the disk is full.
    """
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise DicetalkError(
            f"The disk is full ({error}). Everything finished is kept: free space, then run the same command "
            "again."
        ) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` on success, remove it on failure.

    The content is on the disk before it gets the name. That takes milliseconds.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def noted_path(path: Path) -> Iterator[Path]:
    """As `atomic_path`, and note the sha256 of the content beside it, for `is_as_noted`."""
    with atomic_path(path) as temporary:
        yield temporary
        with atomic_path(_note(path)) as note:
            note.write_text(sha256_file(temporary), encoding="utf-8")


def is_as_noted(path: Path) -> bool:
    """Return whether a file is there and holds what `noted_path` wrote, unharmed by disks and copies."""
    if not path.is_file() or not _note(path).is_file():
        return False
    return _note(path).read_text(encoding="utf-8", errors="replace") == sha256_file(path)


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory next to `path`; it replaces `path` on success and is removed on failure.

    Content and name are on the disk when the block has ended.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield temporary
        replace_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_directory(temporary: Path, path: Path) -> None:
    """Bring a finished directory onto the disk and give it its name; what had the name before is removed."""
    temporary.chmod(0o755)
    for folder, _, names in os.walk(temporary):
        for name in names:
            sync(Path(folder, name))
        sync(Path(folder))
    if path.exists():
        shutil.rmtree(path)
    os.replace(temporary, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Return when the content of a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically.

    Raises:
        DicetalkError: when a number in `value` is NaN or infinite.
    """
    _check_finite(value, str(path))
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(
            json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def read_json(path: Path) -> Any:
    """Read a JSON file; say which stage writes it when it is missing."""
    path = Path(path)
    if not path.is_file():
        raise DicetalkError(f"{path} does not exist; run `dvc repro` to produce it.")
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _check_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise DicetalkError(f"Refusing to write the non-finite number {value} at {where}.")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, f"{where}: {key}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_finite(item, where)
