"""Pictures of the networks that render in one shot only: the ablations without G_S."""

import pytest
import torch

from model import geometry
from model.world.one_shot import render_once, render_part


def test_one_shot_renders_any_number_of_cells(ablated):
    cells = (-3, 8), (5, 21)
    sizes = {"nci": (16 * 12, 16 * 17), "nci-fcg": (16 * 12 - 75, 16 * 17 - 75)}
    assert render_once(ablated, 5, *cells).shape == (3, *sizes[ablated.config.kind])
    assert torch.equal(render_once(ablated, 5, *cells), render_once(ablated, 5, *cells))
    assert not torch.equal(render_once(ablated, 5, *cells), render_once(ablated, 6, *cells))
    assert not torch.equal(render_once(ablated, 5, *cells), render_once(ablated, 5, (-3, 8), (6, 22)))


ROWS, COLUMNS = (-7, 6), (20, 33)
"""Windows of cells: pixels -112 to 111 and 320 to 543. Without padding, 30 of them on each side are not computed."""


@pytest.mark.parametrize("columns", [(350, 365), (352, 480)])
@pytest.mark.parametrize("rows", [(-82, -70), (-1, 0), (-82, 66), (50, 66)])
def test_a_part_of_a_picture_is_what_the_whole_has_there(ablated, rows, columns):
    whole = render_once(ablated, 3, ROWS, COLUMNS)
    (top, _), (left, _) = (geometry.forward(ablated.config.texture, cells) for cells in (ROWS, COLUMNS))
    expected = whole[:, rows[0] - top : rows[1] + 1 - top, columns[0] - left : columns[1] + 1 - left]
    extent = (ROWS, COLUMNS) if ablated.config.kind == "nci" else None
    part = render_part(ablated, 3, extent, rows, columns)
    assert part.shape == expected.shape
    assert torch.allclose(part, expected, atol=1e-5)


@pytest.mark.parametrize("ablated", ["nci"], indirect=True)
def test_a_padded_picture_ends_where_it_is_told_to(ablated):
    """A longer picture differs only at the end."""
    longer = (ROWS[0], ROWS[1] + 5)
    for rows, same in (((100, 111), False), ((-50, -35), True)):
        one, other = (render_part(ablated, 3, (extent, COLUMNS), rows, (380, 420)) for extent in (ROWS, longer))
        assert torch.allclose(one, other, atol=1e-5) == same
