"""Content of inputs by hash; a file that has not been touched since is not read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dicetalk.files import sha256_file, write_json

CACHE = Path("runs/content.json")
READERS = 4  # hashing leaves Python's lock


def content_hashes(inputs: Iterable[str], cache: Path = CACHE) -> dict[str, str]:
    """Return the hex sha256 of each input; of a folder over names and contents, hidden files left out.

    Args:
        inputs: existing files and folders.
        cache: remembers hashes by path, size and times, as DVC does.
    """
    try:
        known = json.loads(cache.read_text())
    except (FileNotFoundError, ValueError):
        known = {}

    def digest(file: Path) -> str:
        stat = file.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        entry = known.get(str(file))
        if not isinstance(entry, list) or entry[:-1] != stamp:
            entry = known[str(file)] = [*stamp, sha256_file(file)]
        return entry[-1]

    hashes = {}
    with ThreadPoolExecutor(READERS) as pool:
        for given in inputs:
            path = Path(given)
            files = [path] if path.is_file() else _visible_files(path)
            digests = list(pool.map(digest, files))
            if path.is_file():
                hashes[given] = digests[0]
                continue
            names = (file.relative_to(path).as_posix() for file in files)
            listing = json.dumps(list(zip(names, digests, strict=True)))
            hashes[given] = hashlib.sha256(listing.encode()).hexdigest()
    write_json(cache, {path: entry for path, entry in known.items() if Path(path).is_file()})
    return hashes


def _visible_files(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(f for f in files if not any(part[0] == "." for part in f.relative_to(folder).parts))
