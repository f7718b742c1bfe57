"""The repository as a whole: graph, packaging and pages agree with the code."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import dicetalk
from dicetalk.report.graph import load_yaml, read_stages
from dicetalk.runs.code import modules_used

REPOSITORY = Path(__file__).resolve().parents[1]
STAGES = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]


def body(stage: str) -> dict[str, Any]:
    return STAGES[stage].get("do", STAGES[stage])


def closure(file: Path) -> set[str]:
    """Library files that a stage reaches, relative to the repository, plumbing left out."""
    return {path.relative_to(REPOSITORY).as_posix() for path in modules_used(file)}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_itself_and_on_the_modules_it_uses(stage: str) -> None:
    deps = set(body(stage)["deps"])
    file = REPOSITORY / f"stages/{stage}.py"
    assert f"stages/{stage}.py" in deps
    covered = {path for path in closure(file) if any(str(parent) in deps for parent in Path(path).parents)}
    missing = closure(file) - covered - deps
    unused = {dep for dep in deps if re.match(r"dicetalk/.*\.py", dep)} - closure(file)
    assert not missing, f"add to deps of {stage} in dvc.yaml: {sorted(missing)}"
    assert not unused, f"remove from deps of {stage} in dvc.yaml: {sorted(unused)}"


# Read and not declared: how it is computed, where it is logged, and the names of corpora: a `foreach` takes
# them from `index`, and other stages depend on the file that has them.
NOT_DECLARED = ("compute", "tracking", "corpora")
# What does not reach the result: guidance of the short videos that a training shows at its validations.
SHOWN_ONLY = {"train_diffusion": {"generate"}}


def chains(file: Path) -> set[str]:
    """Parameters that a file reads, e.g. `preprocess.fps` of `params.preprocess.fps`."""
    if file.suffix == ".j2":
        return set(re.findall(r"params\.([a-z_.]+)", file.read_text()))
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        match = re.fullmatch(r"(?:params|loaded|load_params\(\))\.([\w.]+)", text)
        if match:
            found.add(match[1])
    return {chain for chain in found if not any(other.startswith(f"{chain}.") for other in found)}


def is_declared(chain: str, declared: list[str]) -> bool:
    return any(chain == key or chain.startswith(f"{key}.") for key in declared)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_parameters_it_reads_and_no_others(stage: str) -> None:
    """Of files that take all parameters apart; what is handed one section can read no other."""
    files = [REPOSITORY / f"stages/{stage}.py"]
    files += [REPOSITORY / name for name in closure(files[0])]
    whole = [file for file in files if file.parent.name == "stages" or "params: Params" in file.read_text()]
    folders = [REPOSITORY / dep for dep in body(stage)["deps"] if (REPOSITORY / dep).is_dir()]
    whole += [template for folder in folders for template in folder.rglob("*.j2")]
    read = set().union(*map(chains, whole))
    read = {chain for chain in read if not is_declared(chain, list(NOT_DECLARED))} - SHOWN_ONLY.get(
        stage, set()
    )
    params = [item for item in body(stage).get("params", []) if isinstance(item, str)]
    declared = [re.sub(r"index\.\$\{key\}", "index", key) for key in params]
    missing = {chain for chain in read if not is_declared(chain, declared)}
    unused = {key for key in declared if not any(is_declared(chain, [key]) for chain in read)}
    assert not missing, f"add to params of {stage} in dvc.yaml: {sorted(missing)}"
    assert not unused - {"index"}, f"remove from params of {stage} in dvc.yaml: {sorted(unused)}"


def test_stages_that_read_several_corpora_run_again_when_there_are_others() -> None:
    """Unlike instances of a `foreach`, which read one, they depend on the file that names them all."""
    for stage in STAGES.keys() - {"corpora"}:
        used = closure(REPOSITORY / f"stages/{stage}.py")
        takes_names = any(
            "corpora" in chains(REPOSITORY / name)
            for name in [f"stages/{stage}.py", *used]
            if name.startswith("stages") or "params: Params" in (REPOSITORY / name).read_text()
        )
        several = "foreach" not in STAGES[stage] and (takes_names or "dicetalk/data/in_use.py" in used)
        assert several == ("data/corpora.json" in body(stage)["deps"]), stage


def test_no_stage_depends_on_how_it_is_computed() -> None:
    how = {"compute", "tracking", "retrain", "ablate"}
    for stage in STAGES:
        params = [item for item in body(stage).get("params", []) if isinstance(item, str)]
        assert not {key.split(".")[0] for key in params} & how, stage


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_a_module_with_params_and_an_output_apart_from_its_inputs(stage: str) -> None:
    stage_body = body(stage)
    assert (
        stage_body["cmd"] == f"python -m stages.{stage}"
    )  # nothing of params.yaml, which a shell would read
    assert stage_body["desc"]
    outs = stage_body["outs"]
    assert all(isinstance(out, str) for out in outs)  # `persist: true` would switch the run cache off
    assert outs and not set(outs) & set(stage_body["deps"])
    for metrics in stage_body.get("metrics", []):
        ((path, options),) = metrics.items()
        assert path.startswith("metrics/") and options == {"cache": False}


@pytest.mark.parametrize("stage", ["train_embedder", "learn_bank", "train_diffusion"])
def test_training_reads_cached_features_and_no_media(stage: str) -> None:
    """No module that a training stage reaches can decode video or sound, or encode a clip's features."""
    media = {f"dicetalk/data/{name}.py" for name in ("media", "shards", "encode", "clip", "track")}
    assert not closure(REPOSITORY / f"stages/{stage}.py") & media


def test_every_stage_file_is_in_the_graph() -> None:
    files = {path.stem for path in (REPOSITORY / "stages").glob("*.py")} - {"__init__", "pretrain"}
    assert files == set(STAGES)


def test_stages_are_thin() -> None:
    for file in (REPOSITORY / "stages").glob("*.py"):
        assert len(file.read_text().splitlines()) <= 60, file


def test_no_stage_writes_where_real_data_lies() -> None:
    params = yaml.safe_load((REPOSITORY / "profiles/paper.yaml").read_text())
    outs = [Path(out) for stage in STAGES for out in body(stage)["outs"] if isinstance(out, str)]
    for section in params["index"].values():
        assert not any(out == Path(section["root"]) or out in Path(section["root"]).parents for out in outs)


def test_the_library_knows_no_outer_layer() -> None:
    """`dicetalk` imports neither dvc nor prefect, and mlflow only inside functions of `tracking/`."""
    for file in (REPOSITORY / "dicetalk").rglob("*.py"):
        tree = ast.parse(file.read_text())
        inside = {n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
        checking = {
            n
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
            for n in ast.walk(block)
        }
        for node in ast.walk(tree):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in {name.split(".")[0] for name in names}:
                assert name not in ("dvc", "prefect", "pipelines", "stages"), f"{file}: imports {name}"
                if name == "mlflow" and node not in checking:
                    assert file.parent.name == "tracking" and node in inside, f"{file}:{node.lineno}"


def test_few_modules_stand_beside_the_wings_of_the_library() -> None:
    """What has a subject of its own belongs into a folder; `make lint` checks the arrows between these."""
    loose = sorted(path.stem for path in (REPOSITORY / "dicetalk").glob("*.py"))
    assert len(loose) <= 8, loose


def test_constraints_pin_every_requirement_once_per_python() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    pinned: dict[str, list[str]] = {}
    for line in lines:
        name, _, marker = line.partition(";")
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][a-z0-9.]*", name.strip()), f"not one exact version: {line}"
        pinned.setdefault(name.split("==")[0], []).append(marker.strip())
    for requirement in wanted:
        assert re.split(r"[<>=\[; ]", requirement)[0] in pinned, requirement
    for name, markers in pinned.items():
        assert len(set(markers)) == len(markers), f"{name} is pinned twice"
    assert "torchvision" not in pinned


def test_every_page_names_the_pythons_that_are_checked() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())
    assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == versions
    assert project["requires-python"] == f">={versions[0]}"
    assert f"Needs Python {versions[0]}-{versions[-1]}" in (REPOSITORY / "README.md").read_text()
    assert (
        f"for Python {', '.join(versions[:-1])} and {versions[-1]}"
        in (REPOSITORY / "constraints.txt").read_text()
    )


def test_the_citation_has_the_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == dicetalk.__version__


def test_the_list_of_decisions_has_every_page() -> None:
    folder = REPOSITORY / "docs/decisions"
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert re.findall(r"^\| \[\d{4}\]\(([^)]+)\)", (folder / "README.md").read_text(), re.M) == pages


def test_links_in_the_pages_lead_somewhere() -> None:
    pages = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"
        for name in re.findall(
            r"`((?:docs|dicetalk|stages|pipelines|profiles|tests)/[\w./-]+\.\w+)`", page.read_text()
        ):
            assert "NAME" in name or (REPOSITORY / name).exists(), f"{page}: {name}"


def test_make_profile_switches_and_keeps_edits(tmp_path: Path) -> None:
    for name in ("Makefile", "params.yaml"):
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    (tmp_path / "profiles").mkdir()
    for profile in (REPOSITORY / "profiles").glob("*.yaml"):
        (tmp_path / "profiles" / profile.name).write_bytes(profile.read_bytes())

    def make(profile: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "profile", f"P={profile}"], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    assert make("smoke").returncode == 0
    assert "profile: smoke" in (tmp_path / "params.yaml").read_text()
    unknown = make("nothing")
    assert unknown.returncode != 0 and "demo" in unknown.stdout
    (tmp_path / "params.yaml").write_text("profile: mine\n")
    refused = make("demo")
    assert refused.returncode != 0 and "edits of your own" in refused.stdout
    assert (tmp_path / "params.yaml").read_text() == "profile: mine\n"


def test_the_readme_draws_the_graph_of_dvc_yaml() -> None:
    diagram = re.search(
        r"```mermaid\nflowchart \w+\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL
    )
    assert diagram
    drawn = set()
    for line in diagram[1].splitlines():
        chain = line.split("-->")
        drawn |= {(a.strip(), b.strip()) for a, b in zip(chain, chain[1:], strict=False)}
    stages = read_stages(load_yaml(REPOSITORY / "dvc.yaml"), load_yaml(REPOSITORY / "params.yaml"))
    assert drawn == {(before, stage.name) for stage in stages for before in stage.after}
