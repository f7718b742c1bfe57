"""Which code decides a result, and digests of it that comments, docstrings and layout leave alone."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

from dicetalk.errors import DicetalkError
from dicetalk.files import sha256_file

ROOT = Path(__file__).resolve().parents[2]
# Modules and folders that cannot change a result; their edits must not run anything again.
PLUMBING = (
    *("compute/launch.py", "compute/signals.py", "compute/workers.py"),
    *("config", "errors.py", "files.py", "progress.py", "runs", "tracking", "weights.py"),
)


def code_digests(paths: Iterable[str | Path]) -> dict[str, str]:
    """Return the digest of every file, folders walked, by path in order.

    Raises:
        DicetalkError: for a path that does not exist.
    """
    files: set[Path] = set()
    for path in map(Path, paths):
        if not path.exists():
            raise DicetalkError(f"{path}, which dvc.yaml names as code of a stage, does not exist.")
        found = [path] if path.is_file() else path.rglob("*")
        files |= {file for file in found if file.is_file() and "__pycache__" not in file.parts}
    return {file.as_posix(): code_digest(file) for file in sorted(files)}


def code_digest(file: Path) -> str:
    """Return the hex sha256 of what a file does: of Python the statements, of other files the bytes."""
    if file.suffix != ".py":
        return sha256_file(file)
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                if isinstance(first.value.value, str):
                    node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def modules_used(file: Path) -> set[Path]:
    """Return the modules of this package that a file imports, and those that they import; no plumbing."""
    plumbing = [ROOT / "dicetalk" / name for name in PLUMBING]
    seen: set[Path] = set()
    todo = [file.resolve()]
    while todo:
        new = _imported(todo.pop()) - seen
        seen |= new
        todo += new
    return {path for path in seen if not any(path.is_relative_to(part) for part in plumbing)}


def _imported(file: Path) -> set[Path]:
    """Return what a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dicetalk":
            module = ROOT / Path(*node.module.split("."))
            found |= {module.with_suffix(".py")} | {module / f"{alias.name}.py" for alias in node.names}
    return {path for path in found if path.is_file()}
