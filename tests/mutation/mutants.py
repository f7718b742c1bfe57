"""Which small changes of the code are tried, and which tests have to notice each of them.

The operators are cosmic-ray's, less those that nobody would write by mistake (a shift of a float) and those
that end in an error at once; and three of ours for what this code consists of: sums, products and calls. A
place in the code is changed in one way only, drawn at random, so that no place counts twice. Messages,
docstrings, annotations, log lines and decorators are left alone.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

BINARY = (
    "Add_Sub Add_Mul Sub_Add Mul_Div Mul_Add Div_Mul FloorDiv_Mul FloorDiv_Div Mod_FloorDiv Mod_Mul Pow_Mul"
)
BINARY += " BitOr_BitAnd BitAnd_BitOr"
COMPARISON = "Lt_LtE Lt_Gt LtE_Lt LtE_GtE Gt_GtE Gt_Lt GtE_Gt GtE_LtE Eq_NotEq NotEq_Eq Is_IsNot IsNot_Is"
UNARY = "USub_UAdd Delete_Invert Delete_Not"
OPERATORS = [
    *(f"ReplaceBinaryOperator_{pair}" for pair in BINARY.split()),
    *(f"ReplaceComparisonOperator_{pair}" for pair in COMPARISON.split()),
    *(f"ReplaceUnaryOperator_{pair}" for pair in UNARY.split()),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd", "AddNot"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "NumberReplacer", "ZeroIterationForLoop"),
]
SAME_NUMBERS = {"to", "cpu", "numpy", "float", "double", "detach", "contiguous", "copy", "item", "tolist"}
SYMMETRIC_CALLS = {"min", "max", "minimum", "maximum"}  # arguments may change places
QUIET_CALLS = {"log", "track", "warn", "_format", "_status"}  # what people read, not what is computed
FOLDERS = (
    *("training", "models", "models/backbones/denoisers", "data"),
    *("evaluation", "evaluation/metrics"),
)
TEST_FOLDERS = ("training", "models", "data", "evaluation", "planning")
# No numbers: files, formats, processes. Or code that runs in processes of its own or needs fetched weights.
LEFT_OUT = {
    "training": {"checkpoint", "manifest", "parallel", "sharding", "pretraining", "tensor_files"},
    "models": {"cost", "pipeline_io", "pipeline_networks", "rife", "state_files", "widths"},
    "denoisers": {"base", "table"},
    "data": {
        *(
            "deinterlace",
            "disk",
            "earlier",
            "fan",
            "folder",
            "in_use",
            "index",
            "index_table",
            "media",
            "mp4",
            "pool",
            "preprocess",
            "reasons",
            "results",
            "suffixes",
        ),
        *("scheduler", "worker"),
    },
    "evaluation": {
        "evaluate",
        "folders",
        "observations",
        "protocol",
        "readers",
        "reference",
        "roles",
        "session",
        "show",
        "store",
    },
    "metrics": {"table"},
}


Change = Callable[[], str | None]  # returns the changed text
Place = tuple[int, int, Change]  # from and to which character


@dataclass(frozen=True)
class Mutant:
    """One change: `module` relative to the repository, `code` the whole new text, `change` what differs."""

    module: str
    line: int
    change: str
    code: str


def modules(repository: Path) -> list[str]:
    """Return the modules whose numbers are put to the test."""
    found = [path for folder in FOLDERS for path in sorted((repository / "dicetalk" / folder).glob("*.py"))]
    chosen = [path for path in found if path.stem not in LEFT_OUT[path.parent.name] | {"__init__"}]
    return [str(path.relative_to(repository)) for path in chosen]


def draw(repository: Path, module: str, count: int, seed: int) -> list[Mutant]:
    """Return up to `count` mutants of a module at different places, the same for the same text and seed."""
    rng = random.Random(f"{seed} {module}")
    code = (repository / module).read_text(encoding="utf-8")
    places: dict[tuple[int, int], list[Change]] = {}
    for start, end, change in [*_cosmic_ray(code), *_ours(code)]:
        places.setdefault((start, end), []).append(change)
    hidden = list(_hidden(code))
    visible = [p for p in sorted(places) if not any(low <= p[0] and p[1] <= high for low, high in hidden)]
    mutants: list[Mutant] = []
    for place in rng.sample(visible, len(visible)):
        if len(mutants) == count:
            break
        changed = (change() for change in rng.sample(places[place], len(places[place])))
        mutated = next((text for text in changed if text and text != code and _compiles(text)), None)
        if mutated is not None:
            mutants.append(_mutant(module, code, mutated))
    return mutants


def tests_of(repository: Path, module: str) -> list[str]:
    """Return the test files that import a module or one of its users."""
    files = [p for folder in TEST_FOLDERS for p in sorted((repository / "tests" / folder).glob("test_*.py"))]
    users = _importing(sorted((repository / "dicetalk").rglob("*.py")), module)
    names = [module, *(str(path.relative_to(repository)) for path in users)]
    found = sorted({file for name in names for file in _importing(files, name)})
    return [str(path.relative_to(repository)) for path in found]


def _importing(files: list[Path], module: str) -> list[Path]:
    *package, name = Path(module).with_suffix("").parts
    dotted = ".".join(package)
    imports = re.compile(
        rf"from {re.escape(dotted)}\.{name} import|from {re.escape(dotted)} import [^\n]*\b{name}\b"
    )
    return [path for path in files if imports.search(path.read_text(encoding="utf-8"))]


def _mutant(module: str, code: str, mutated: str) -> Mutant:
    before, after = code.splitlines(), mutated.splitlines()
    line = next((i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), 0)
    return Mutant(module, line + 1, f"{before[line].strip()}  ->  {after[line].strip()}", mutated)


def _cosmic_ray(code: str) -> Iterator[Place]:
    offsets = _line_offsets(code)
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        positions = [
            place for node in ast_nodes(get_ast(code)) for place in operator.mutation_positions(node)
        ]
        for occurrence, ((row, column), (end_row, end_column)) in enumerate(positions):
            change = partial(mutate_code, code, operator, occurrence)
            yield offsets[row] + column, offsets[end_row] + end_column, change


def _ours(code: str) -> Iterator[Place]:
    """Drop a term or a factor, swap the first two arguments, skip a call (`x[0].f().g()` to `x[0].g()`)."""
    text = code.encode()
    offsets = _line_offsets(text)

    def span(node: ast.expr) -> tuple[int, int]:
        return offsets[node.lineno] + node.col_offset, offsets[node.end_lineno] + node.end_col_offset

    def put(node: ast.expr, replacement: ast.expr) -> Place:
        start, end = span(node)
        new = text[slice(*span(replacement))]
        # Places are counted in characters, as cosmic-ray does.
        place = (len(text[:start].decode()), len(text[:end].decode()))
        return *place, lambda: (text[:start] + new + text[end:]).decode()

    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div):
            yield put(node, node.left)
        elif isinstance(node, ast.Call):
            plain = [argument for argument in node.args if not isinstance(argument, ast.Starred)]
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if len(plain) >= 2 and not isinstance(plain[0], ast.Constant) and name not in SYMMETRIC_CALLS:
                start, end = span(plain[0])[0], span(plain[1])[1]
                middle = text[span(plain[0])[1] : span(plain[1])[0]]
                first, second = (text[slice(*span(argument))] for argument in plain[:2])
                mutated = (text[:start] + second + middle + first + text[end:]).decode()
                yield len(text[:start].decode()), len(text[:end].decode()), lambda mutated=mutated: mutated
            method = node.func if isinstance(node.func, ast.Attribute) else None
            if (
                method
                and isinstance(method.value, ast.Call | ast.Subscript)
                and method.attr not in SAME_NUMBERS
            ):
                yield put(node, method.value)


def _hidden(code: str) -> Iterator[tuple[int, int]]:
    """Yield the parts of the text that are not numbers: annotations, messages, docstrings, decorators."""
    offsets = _line_offsets(code.encode())
    characters = code.encode()

    def place(node: ast.AST) -> tuple[int, int]:
        start = offsets[node.lineno] + node.col_offset  # type: ignore[attr-defined]
        end = offsets[node.end_lineno] + node.end_col_offset  # type: ignore[attr-defined]
        return len(characters[:start].decode()), len(characters[:end].decode())

    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            yield place(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from map(place, node.decorator_list)
            if isinstance(node, ast.FunctionDef) and node.returns:
                yield place(node.returns)
        elif isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
            yield place(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield place(node)
        elif isinstance(node, ast.keyword) and node.arg == "strict":  # of zip: a guard, no number
            yield place(node)
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) in QUIET_CALLS
        ):
            yield place(node)


def _line_offsets(text: str | bytes) -> list[int]:
    """Return where each line begins, counted from line 1."""
    found = [0, 0]
    for line in text.splitlines(keepends=True):
        found.append(found[-1] + len(line))
    return found


def _compiles(code: str) -> bool:
    try:
        compile(code, "mutant", "exec")
    except SyntaxError:
        return False
    return True
