"""The flags of ``infinitygan evaluate``."""

import sys
from typing import Annotated

import typer

from model.errors import InputError
from pipelines.terminal.flags import Protocol, Quiet, Scale


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help='Checkpoint of the generator, a .safetensors file, or "bundled".')],
    data: Annotated[
        str, typer.Argument(help="Training set made by ingest; its val and test splits are the reference.")
    ],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder or URL for metrics.json and the pictures.")],
    protocol: Annotated[
        Protocol, typer.Option(help="How pictures are scaled: antialiased, or paper for both this and the paper's way.")
    ] = "antialiased",
    scale: Scale = 1,
    inception: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Weights of the standard Inception network for FID: .safetensors or .npz."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measures how far a checkpoint's worlds are from held-out photographs."""
    from pipelines.evaluate import EvaluateOptions, evaluate
    from pipelines.evaluate_scaled import evaluate_scaled
    from pipelines.terminal.evaluation_tables import show, show_scaled
    from transforms.evaluation.scaled import ScaledEvaluation
    from transforms.evaluation.settings import Evaluation

    if scale == 1:
        show(evaluate(EvaluateOptions(checkpoint, data, out, inception, evaluation=Evaluation(protocol=protocol))))
    elif protocol == "paper":
        raise InputError("--protocol paper applies at scale 1; remove it, or --scale")
    else:
        evaluation = ScaledEvaluation(scale=scale)
        show_scaled(evaluate_scaled(EvaluateOptions(checkpoint, data, out, inception, evaluation=evaluation)))
    print(f"Metrics and pictures are in {out}", file=sys.stderr)
