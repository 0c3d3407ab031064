"""The flags of ``infinitygan evaluate``."""

import sys
from typing import Annotated

import typer

from pipelines.terminal.flags import Protocol, Quiet


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help='Checkpoint of the generator, a .safetensors file, or "bundled".')],
    data: Annotated[
        str, typer.Argument(help="Training set made by ingest; its val and test splits are the reference.")
    ],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder or URL for metrics.json and the pictures.")],
    protocol: Annotated[
        Protocol, typer.Option(help="How pictures are scaled: antialiased, or paper for both this and the paper's way.")
    ] = "antialiased",
    inception: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Weights of the standard Inception network for FID: .safetensors or .npz."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measures how far a checkpoint's worlds are from held-out photographs."""
    from pipelines.evaluate import EvaluateOptions, evaluate
    from pipelines.terminal.evaluation_tables import show
    from transforms.evaluation.settings import Evaluation

    results = evaluate(EvaluateOptions(checkpoint, data, out, inception, Evaluation(protocol=protocol)))
    show(results)
    print(f"Metrics and pictures are in {out}", file=sys.stderr)
