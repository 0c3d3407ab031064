"""The fields of a defined world: latents, noise and coordinates, including its circle, overlays and edits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model import geometry
from model.config import GeneratorConfig
from model.geometry import Window
from model.networks.coordinates import coordinate_field
from model.world.definition import NOISE, Z_L, Box, Definition, Edit, cells, image, positions_per_cell
from model.world.fields import NoiseWindow, z_l_field, z_n_fields
from model.world.footprint import Windows
from model.world.overlay import Overlay

Patchwork = list[tuple[Window, slice]]
"""Windows of the first turn, each with its place in the window that they form together."""

Place = tuple[slice, slice, slice, slice]
"""The place of a window in a field [1,C,H,W]."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """The intersection of a window and a box.

    Attributes:
        rows: The rows of positions.
        columns: The columns of positions, in the first turn.
        place: The place in a field of the window.
        box_place: The place in a field of the box.
    """

    rows: Window
    columns: Window
    place: Place
    box_place: Place


class Latents:
    """z_l, z_n and coordinates of a world.

    Args:
        definition: The world; it fits the network (`definition.check_definition`).
        config: The network's configuration.
        device: The device to compute on.
        overlays: The definition's overlays, on the device; they fit it (`overlay.check_overlay`).
    """

    def __init__(
        self, definition: Definition, config: GeneratorConfig, device: str = "cpu", overlays: Sequence[Overlay] = ()
    ):
        self.definition, self.config, self.device = definition, config, device
        self.overlays = [(overlay, overlay.footprint(config)) for overlay in overlays]
        self.turn_cells = definition.cyclic_cells(config.cell_px)
        self.likeness: list[tuple[Tensor, Tensor] | None] = []
        """The mean and deviation that each edit's z_l copies."""
        for edit in definition.edits:
            self.likeness.append(edit.like_box_px and self.statistics(edit.like_box_px))

    def z_l(self, rows: Window, columns: Window) -> Tensor:
        """Returns the local latents float32 [1,z_l_dim,H,W] at a window of cells."""
        parts = patchwork(columns, self.turn_cells)
        channels = self.config.z_l_dim
        field = torch.cat([z_l_field(self.definition.seed, rows, part, channels, self.device) for part, _ in parts], 3)
        field *= self.truncation_of(rows)
        for overlay, place in self.overlays:
            for meeting in meetings((rows, columns), place.latents, self.turn_cells):
                field[meeting.place] = overlay.z_l[meeting.box_place]
        # While an edit's likeness is computed, only the edits before it apply.
        for edit, likeness in zip(self.definition.edits, self.likeness, strict=False):
            if Z_L not in edit.fields:
                continue
            for meeting in self.met(edit, rows, columns):
                mean, deviation = likeness or (0, self.truncation_of(meeting.rows))
                new = z_l_field(edit.seed, meeting.rows, meeting.columns, channels, self.device)
                field[meeting.place] = new * deviation + mean
        return field

    def truncation_of(self, rows: Window) -> Tensor:
        """Returns the factor float32 [1,1,H,1] of the local latents that are drawn in rows of cells.

        Its value is 1 up to a quarter of the photographs' height from the horizon, and then falls to the local
        truncation at the edge of the photographs' frame.
        """
        quarter_px = self.config.full_px / 4
        row = torch.arange(rows[0], rows[1] + 1, device=self.device, dtype=torch.float64)
        distance_px = ((row + 0.5) * self.config.cell_px).abs()
        beyond = ((distance_px - quarter_px) / quarter_px).clamp(0, 1)
        return (1 - (1 - self.definition.local_truncation) * beyond).float()[None, None, :, None]

    def z_n(self, windows: Sequence[NoiseWindow]) -> list[Tensor]:
        """Returns the noise float32 [1,1,H,W] of several layers, each at a window of its own positions."""
        turns = [self.turn_cells and self.turn_cells * positions_per_cell(layer) for layer, _, _ in windows]
        fields = noise_around(self.definition.seed, windows, turns, self.device)
        for overlay, place in self.overlays:
            for (layer, rows, columns), turn, field in zip(windows, turns, fields, strict=True):
                for meeting in meetings((rows, columns), place.noise[layer], turn):
                    field[meeting.place] = overlay.z_n[layer][meeting.box_place]
        for edit in self.definition.edits:
            if NOISE in edit.fields:
                self.edit_noise(edit, windows, fields)
        return fields

    def edit_noise(self, edit: Edit, windows: Sequence[NoiseWindow], fields: Sequence[Tensor]) -> None:
        """Draws the noise within an edit's box again."""
        wanted, targets = [], []
        for (layer, rows, columns), field in zip(windows, fields, strict=True):
            for meeting in self.met(edit, rows, columns, positions_per_cell(layer)):
                wanted.append((layer, meeting.rows, meeting.columns))
                targets.append(field[meeting.place])
        for target, new in zip(targets, z_n_fields(edit.seed, wanted, self.device), strict=True):
            target.copy_(new)

    def coordinates(self, rows: Window, columns: Window) -> Tensor:
        """Returns the coordinates float32 [1,3,H,W] at a window of cells."""
        row, column = (torch.arange(low, high + 1, device=self.device) for low, high in (rows, columns))
        return coordinate_field(self.config, row, column, self.turn_cells)[None]

    def met(self, edit: Edit, rows: Window, columns: Window, positions: int = 1) -> Iterator[Meeting]:
        """Yields where a window of a grid with `positions` positions per cell meets an edit's box."""
        cell_px = self.config.cell_px
        box_rows, box_columns = (image(box, positions) for box in (edit.rows(cell_px), edit.columns(cell_px)))
        return meetings((rows, columns), (box_rows, box_columns), self.turn_cells and self.turn_cells * positions)

    def statistics(self, box: Box) -> tuple[Tensor, Tensor]:
        """Returns the mean and deviation float32 [1,z_l_dim,1,1] of each channel of z_l in a box, after prior edits."""
        x, y, width, height = box
        cell_px = self.config.cell_px
        field = self.z_l(cells(y, height, cell_px), cells(x, width, cell_px)).double()
        deviation, mean = torch.std_mean(field, dim=(2, 3), keepdim=True, correction=0)
        return mean.float(), deviation.float()


def noise_around(seed: int, windows: Sequence[NoiseWindow], turns: Sequence[int | None], device: str) -> list[Tensor]:
    """Returns the noise float32 [1,1,H,W] of several layers, as `z_n_fields`, each on a circle of its own positions.

    Args:
        seed: The seed.
        windows: The layers and their windows.
        turns: The number of positions in a turn of each; None without a circle.
        device: The device to compute on.
    """
    parts = [patchwork(columns, turn) for (_, _, columns), turn in zip(windows, turns, strict=True)]
    wanted = [(layer, rows, part) for (layer, rows, _), work in zip(windows, parts, strict=True) for part, _ in work]
    pieces = iter(z_n_fields(seed, wanted, device))
    return [torch.cat([next(pieces) for _ in work], 3) if len(work) > 1 else next(pieces) for work in parts]


def meetings(window: Windows, box: Windows, turn: int | None) -> Iterator[Meeting]:
    """Yields where a window meets a box, on a circle of `turn` positions."""
    (rows, columns), (box_rows, box_columns) = window, box
    met_rows = geometry.overlap(rows, box_rows)
    for box_part, box_slice in patchwork(box_columns, turn) if met_rows else ():
        for part, part_slice in patchwork(columns, turn):
            met = geometry.overlap(part, box_part)
            if met_rows and met:
                first, box_first = part_slice.start + met[0] - part[0], box_slice.start + met[0] - box_part[0]
                yield Meeting(
                    met_rows, met, place_at(met_rows, met, rows, first), place_at(met_rows, met, box_rows, box_first)
                )


def place_at(met_rows: Window, met_columns: Window, rows: Window, left: int) -> Place:
    """Returns the place of positions in a field that starts at these rows and at column `left`."""
    across = slice(left, left + geometry.length(met_columns))
    return slice(None), slice(None), geometry.part(met_rows, rows), across


def patchwork(window: Window, turn: int | None) -> Patchwork:
    """Splits a window into windows of the first turn, 0 to turn - 1, in order; without a turn, returns it whole."""
    low, high = window
    if turn is None:
        return [(window, slice(0, high - low + 1))]
    parts, at = [], low
    while at <= high:
        start = at % turn
        length = min(turn - start, high - at + 1)
        parts.append(((start, start + length - 1), slice(at - low, at - low + length)))
        at += length
    return parts
