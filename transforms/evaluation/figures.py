"""The pictures of an evaluation: the compared sets side by side, so that the numbers can be checked by eye."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from model.quantise import quantise
from transforms.evaluation.results import COLOURS, DescribedSets, References
from transforms.evaluation.scaled import METHODS, of_method
from transforms.evaluation.settings import PATCH, band, beyond_frame, clamp_to_frame, frame

GAP_PX, LABEL_PX = 8, 80
PLOT_PX, BINS = (320, 140), 24
PAPER, INK, GENERATED, PHOTOGRAPHS = (255, 255, 255), (0, 0, 0), (200, 60, 30), (170, 185, 200)

Row = tuple[str, Sequence[Tensor]]
"""A label, and groups of pictures uint8 [n,3,h,w]."""


def bands_picture(worlds: DescribedSets, references: References) -> Image.Image:
    """Draws a row per band: patches of the first worlds, then of the first held-out photographs at the same height.

    Beyond the frame, patches of photographs' sky or ground follow.
    """
    rows: list[Row] = []
    for band_px in references.evaluation.bands_px:
        names = [band(clamp_to_frame(band_px, references.config)), beyond_frame(band_px, references.config)]
        photographs = [references.held_out[name].examples for name in names if name in references.held_out]
        rows.append((f"{band_px:+d} px", (worlds[band(band_px)].examples, *photographs)))
    return sheet(rows)


def frames_picture(worlds: DescribedSets, references: References) -> Image.Image:
    """Draws frames of the first held-out photographs, and of the first worlds at each scale."""
    rows: list[Row] = [("photographs", (references.held_out[frame()].examples,))]
    rows += [(f"{scale}x", (worlds[frame(scale)].examples,)) for scale in references.evaluation.scales]
    return sheet(rows)


def methods_picture(name: str, drawn: DescribedSets, held_out: DescribedSets) -> Image.Image:
    """Draws a set of pictures of the first held-out photographs, and of the first worlds by each method."""
    sets = {"photographs": held_out[name], **{method: drawn[of_method(name, method)] for method in METHODS}}
    return sheet([(label, (described.examples,)) for label, described in sets.items()])


def diversity_picture(pictures: Tensor) -> Image.Image:
    """Draws pictures [worlds,latents,textures,3,H,W], about -1 to 1: a row per z_l, a column per texture."""
    return sheet([(f"z_l {n + 1}", tuple(quantise(row))) for n, row in enumerate(pictures.transpose(0, 1))])


def colours_picture(worlds: DescribedSets, references: References) -> Image.Image:
    """Draws histograms of patches' mean colours and contrasts: photographs filled, generated ones as a line."""
    width, height = PLOT_PX
    picture = Image.new("RGB", (width, len(COLOURS) * height), PAPER)
    for number, name in enumerate(COLOURS):
        sets = [described[PATCH].statistics[name] for described in (references.held_out, worlds)]
        picture.paste(histogram(name, *sets), (0, number * height))
    return picture


def histogram(name: str, photographs: Tensor, generated: Tensor) -> Image.Image:
    """Draws the shares of values [N] and [M] in equal bins over the range of both."""
    width, height = PLOT_PX
    low, high = (float(bound) for bound in torch.cat([photographs, generated]).aminmax())
    shares = [torch.histc(x, BINS, low, high) / len(x) for x in (photographs, generated)]
    tallest = max(float(share.max()) for share in shares)
    bottom, step = height - 2 * GAP_PX, (width - 2 * GAP_PX) / BINS
    drawn = [[bottom - float(share) / tallest * (height - 5 * GAP_PX) for share in of] for of in shares]
    picture = Image.new("RGB", PLOT_PX, PAPER)
    draw = ImageDraw.Draw(picture)
    for number, top in enumerate(drawn[0]):
        draw.rectangle((GAP_PX + number * step, top, GAP_PX + (number + 1) * step - 1, bottom), PHOTOGRAPHS)
    draw.line([(GAP_PX + (number + 0.5) * step, top) for number, top in enumerate(drawn[1])], GENERATED, 2)
    draw.text((GAP_PX, GAP_PX // 2), f"{name.replace('_', ' less ')}, {low:.0f} to {high:.0f} of 255", INK)
    return picture


def sheet(rows: Sequence[Row]) -> Image.Image:
    """Draws labelled rows of groups of pictures, all of the same size."""
    side = rows[0][1][0].shape[2]
    widest = max(sum(len(group) * side + GAP_PX for group in groups) for _, groups in rows)
    picture = Image.new("RGB", (LABEL_PX + widest, len(rows) * (side + GAP_PX)), PAPER)
    draw = ImageDraw.Draw(picture)
    for number, (label, groups) in enumerate(rows):
        x, y = LABEL_PX, number * (side + GAP_PX)
        draw.text((GAP_PX, y + side // 2), label, INK)
        for group in groups:
            for one in group:
                picture.paste(Image.fromarray(one.permute(1, 2, 0).contiguous().numpy()), (x, y))
                x += side
            x += GAP_PX
    return picture
