"""Evaluate at a scale: compares what a detail stage draws with photographs of the same height."""

from model.errors import InputError
from model.metrics.picture_sets import describe
from pipelines.evaluate import EvaluateOptions, describe_both, load, load_networks, watched, write
from transforms.evaluation.figures import methods_picture
from transforms.evaluation.scaled import ScaledEvaluation, ScaledResults, draw_worlds, measure_scaled, read_frames
from transforms.evaluation.settings import PATCH, frame


def evaluate_scaled(options: EvaluateOptions[ScaledEvaluation]) -> ScaledResults:
    """Evaluates the detail stage of a checkpoint and writes the results.

    Raises:
        InputError: An option does not fit. Nothing was written.
    """
    checkpoint, evaluation = load(options), options.evaluation
    if checkpoint.detail is None:
        raise InputError(
            f"scale {evaluation.scale} needs a detail stage, which checkpoint {options.checkpoint} lacks; evaluate it "
            "at scale 1, or use a checkpoint of `train --preset detail`"
        )
    _, networks = load_networks(options)
    photographs = describe_both(read_frames(options.data, checkpoint.generator.config, evaluation), networks)
    differences: list[float] = []
    worlds = draw_worlds(checkpoint, evaluation, differences)
    drawn = describe(watched("Worlds", worlds, evaluation.worlds), networks)
    results = measure_scaled(drawn, differences, photographs, evaluation)
    pictures = {f"{name}.png": methods_picture(name, drawn, photographs[0]) for name in (PATCH, frame())}
    write(options, checkpoint, results, pictures)
    return results
