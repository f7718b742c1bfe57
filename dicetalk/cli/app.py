"""The `dicetalk` command. Commands import what they need when they run, so `--help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicetalk.cli.leaderboard import leaderboard
from dicetalk.cli.study import study_app
from dicetalk.cli.weights import weights_app

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(weights_app, name="weights")
app.add_typer(study_app, name="study")
app.command()(leaderboard)


def _print_version(wanted: bool) -> None:
    if wanted:
        from dicetalk import __version__

        typer.echo(f"dicetalk {__version__}")
        raise typer.Exit


@app.callback()
def _dicetalk(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Emotional talking portraits: one image, speech and an emotion in, a video out.

    The training pipeline is `make repro` (or `dvc repro`); these commands use its parts on your own files.
    """


@app.command()
def generate(
    image: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Picture with the face to animate.")
    ],
    audio: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Speech: a sound file, or a video with sound.")
    ],
    out: Annotated[Path, typer.Option(help="The mp4 to write.")],
    emotion: Annotated[
        str | None,
        typer.Option(
            help="angry, contempt, disgusted, fear, happy, neutral, sad or surprised; or a mixture such as "
            "happy:0.7,sad:0.3, with weights that sum to 1."
        ),
    ] = None,
    level: Annotated[int, typer.Option(help="Strength of the emotion, 1 to 3; neutral has only 1.")] = 1,
    reference_video: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Take the emotion from this video instead of a name."),
    ] = None,
    model: Annotated[Path, typer.Option(help="Folder of the trained model.")] = Path("models/dicetalk"),
    seed: Annotated[int | None, typer.Option(help="Of the noise: another seed gives another motion.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.")] = None,
    identity_scale: Annotated[float | None, typer.Option(help="Guidance towards the portrait.")] = None,
    audio_scale: Annotated[float | None, typer.Option(help="Guidance towards the speech.")] = None,
    emotion_scale: Annotated[float | None, typer.Option(help="Guidance towards the emotion.")] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Processors to use, by default all; the last bits depend on the number."),
    ] = None,
) -> None:
    """Make a portrait speak with an emotion; the video is as long as the sound.

    The emotion is named (`--emotion happy --level 3`), shown (`--reference-video`), or, with neither, heard
    in the speech. Whatever is left out takes the value that the model was packaged with.

    Example: `dicetalk generate --image me.jpg --audio hello.wav --emotion happy --level 3 --out hello.mp4`
    """
    from dicetalk.errors import DicetalkError
    from dicetalk.generation.emotion_mix import parse_emotion

    # Before a model is loaded, which can take a minute.
    if out.suffix != ".mp4":
        raise DicetalkError(f"--out {out}: expected a name that ends in .mp4.")
    if emotion is not None:
        parse_emotion(emotion, level)
    from dicetalk.compute.precision import usable_processors
    from dicetalk.config import Generate
    from dicetalk.generation.clip import generate_one, load_model

    talking = load_model(model)
    given = {
        "seed": seed,
        "num_inference_steps": steps,
        "identity_scale": identity_scale,
        "audio_scale": audio_scale,
        "emotion_scale": emotion_scale,
    }
    # Models of before version 0.3 also say how their videos were computed.
    own = {key: value for key, value in talking.settings["generate"].items() if key in Generate.model_fields}
    settings = Generate(**own | {key: value for key, value in given.items() if value is not None})
    number = threads or usable_processors()
    generate_one(talking, image, audio, out, settings, number, emotion, level, reference_video)
    typer.echo(out)


@app.command()
def preprocess(
    source: Annotated[
        Path,
        typer.Option(
            "--input", exists=True, file_okay=False, help="Folder of videos, read with its subfolders."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder to write; must not exist unless it was written here.")],
    params: Annotated[Path, typer.Option(help="Parameter file; its section `preprocess` is used.")] = Path(
        "params.yaml"
    ),
) -> None:
    """Find, track and crop the face in every video of a folder; say why when a video is not usable.

    Emotions come from a `clips.csv` in the folder, if there is one; `docs/data.md` has its columns.

    Example: `dicetalk preprocess --input recordings --output processed`
    """
    from dicetalk.config import load_params
    from dicetalk.data.preprocess import preprocess_folder, stop_after_crashes
    from dicetalk.errors import DicetalkError

    if output.exists() and any(output.iterdir()) and not (output / "summary.json").is_file():
        raise DicetalkError(f"{output} holds files this program did not write; choose another --output.")
    loaded = load_params(params)
    compute = loaded.compute
    summary = preprocess_folder(source, output, loaded.preprocess, compute.preprocess, compute.resume)
    typer.echo((output / "rejected.csv").read_text(encoding="utf-8"), nl=False)
    stop_after_crashes(summary)


@app.command()
def evaluate(
    generated: Annotated[
        list[str],
        typer.Option(help="Folder of generated videos, or NAME=FOLDER; again for more systems."),
    ],
    real: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder of real videos with the same names.")
    ],
    protocol: Annotated[
        str | None,
        typer.Option(help="paper, eat, open, or one of the in-domain ones; default: `evaluate.protocol`."),
    ] = None,
    evaluators: Annotated[Path, typer.Option(help="Folder of the in-domain metric networks.")] = Path(
        "models/evaluators"
    ),
    params: Annotated[Path, typer.Option(help="Parameter file; its section `evaluate` is used.")] = Path(
        "params.yaml"
    ),
    out: Annotated[Path | None, typer.Option(help="Also write everything as JSON.")] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Keep what was measured here, to continue or to add videos later."),
    ] = None,
) -> None:
    """Score any system's videos against real ones of the same names, with 95 % intervals.

    Labels come from `clips.csv` in the real folder or from names like `M003_hap_3_001`. A folder of the
    `generate` stage (with `manifest.parquet`) is scored against a processed data set. Every file that could
    not be measured is listed with its reason.

    Example: `dicetalk evaluate --generated videos --real clips --protocol open`
    """
    from dicetalk.config import load_params
    from dicetalk.evaluation.evaluate import evaluate_any
    from dicetalk.evaluation.show import print_report
    from dicetalk.files import write_json

    loaded = load_params(params)
    settings = loaded.evaluate
    if protocol is not None:
        settings = settings.model_copy(update={"protocol": protocol})
    report = evaluate_any(generated, real, evaluators, settings, loaded.compute.evaluate.threads, work).report
    print_report(report)
    if out is not None:
        write_json(out, report)


@app.command()
def plan(
    profile: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Parameter file, e.g. `profiles/paper.yaml`.")
    ] = Path("params.yaml"),
    gpus: Annotated[
        list[int] | None, typer.Option(min=1, help="Number of GPUs; repeat it for several (default 1).")
    ] = None,
    gpu_memory_gib: Annotated[
        list[float] | None, typer.Option(min=1, help="Memory of a GPU; repeat it for several (default 80).")
    ] = None,
    sustained_tflops: Annotated[
        float,
        typer.Option(min=0.001, help="10^12 operations a second a GPU sustains; 125: 40 % of an A100, bf16."),
    ] = 125.0,
) -> None:
    """Tell what training a profile's diffusion model takes: memory, arithmetic, hours, and what fits.

    Computed from a simulated step without data, weights or a GPU. The paper profile takes some minutes.

    Example: `dicetalk plan --profile profiles/paper.yaml --gpus 1 --gpus 8 --gpu-memory-gib 80`
    """
    from dicetalk.config import load_params
    from dicetalk.planning.plan import make_plan
    from dicetalk.planning.table import print_plan

    params = load_params(profile)
    made = make_plan(params, gpus or [1], sustained_tflops)
    print_plan(made, params, gpu_memory_gib or [80.0], sustained_tflops)


@app.command()
def doctor(
    params: Annotated[Path, typer.Option(help="Parameter file to check.")] = Path("params.yaml"),
) -> None:
    """Check this machine against the active profile and say how to mend what is missing.

    Exit code 1 when something will stop a run.

    Example: `dicetalk doctor --params profiles/paper.yaml`
    """
    from rich.console import Console
    from rich.table import Column, Table

    from dicetalk.cli.doctor import examine

    findings = examine(params)
    table = Table("", Column("what", no_wrap=True), "found", "what to do", box=None, pad_edge=False)
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "fail": "[bold red]fail[/]"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.name, finding.found, finding.fix)
    Console().print(table)
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)
