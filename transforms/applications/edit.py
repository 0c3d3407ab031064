"""Edits of requests, in a request file or of a rendered panorama."""

import dataclasses
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from model import geometry
from model.errors import InputError
from model.world.definition import Edit
from model.world.latents import patchwork
from model.world.overlay import box_windows
from transforms.panoramas.folder import PANORAMAS
from transforms.panoramas.plan import plan_from_json
from transforms.panoramas.requests import RenderRequest, read_requests
from transforms.panoramas.tiling import TileSize
from transforms.storage.files import exists, join, read_json

JSON, JSONL = ".json", ".jsonl"


@dataclass(frozen=True, slots=True)
class Edited:
    """A request to be edited, and the settings that it was rendered with.

    Attributes:
        request: the request before the edit.
        others: the requests before and after it in its file.
        file: the file for the edited request.
        out: the folder of the render job; None if only the request is known.
        tile_px: the size of its tiles, if known.
        precision: the precision of the network, if known.
        checkpoint_sha256: the SHA-256 of the generator, if known.
    """

    request: RenderRequest
    others: tuple[tuple[RenderRequest, ...], tuple[RenderRequest, ...]]
    file: str
    out: str | None = None
    tile_px: TileSize | None = None
    precision: str | None = None
    checkpoint_sha256: str | None = None

    def requests(self, edited: RenderRequest) -> list[RenderRequest]:
        """Returns the content of the file after the edit."""
        before, after = self.others
        return [*before, edited, *after]


def find_request(url: str, request_id: str | None) -> Edited:
    """Finds the request of a panorama's record, or one in a .jsonl of requests.

    Raises:
        InputError: there is no request, or there are several and no id is given.
    """
    if url.endswith(JSONL):
        requests = read_requests(url)
        if request_id is None and len(requests) > 1:
            raise InputError(f"{url} holds {len(requests)} requests; choose one with --id")
        places = [place for place, request in enumerate(requests) if request_id in (None, request.id)]
        if not places:
            raise InputError(f"{url} holds no request {request_id}")
        place = places[0]
        return Edited(requests[place], (tuple(requests[:place]), tuple(requests[place + 1 :])), url)
    if not url.endswith(JSON):
        raise InputError(f"{url}: give a panorama's .json, or a .jsonl of requests")
    if not exists(url):
        raise InputError(f"{url}: there is no such file")
    plan = plan_from_json(read_json(url), "", url)
    folder, file = posixpath.split(url)
    out, name = posixpath.split(folder)
    if name != PANORAMAS or file != f"{plan.request.id}{JSON}":
        raise InputError(f"{url} is not in the folder {PANORAMAS} of a render job; give the .jsonl of its request")
    if request_id not in (None, plan.request.id):
        raise InputError(f"{url} is for request {plan.request.id}, not {request_id}")
    file = join(out, "requests", f"{plan.request.id}{JSONL}")
    return Edited(plan.request, ((), ()), file, out or ".", plan.tile_px, plan.precision, plan.checkpoint_sha256)


def with_edit(request: RenderRequest, edit: Edit) -> RenderRequest:
    """Adds an edit to a request.

    Raises:
        InputError: a box of the edit does not meet the panorama.
    """
    for name, box in (("--box", edit.box_px), ("--like", edit.like_box_px)):
        if box is not None and not meets(box, request):
            (top, bottom), (left, right) = request.rows, request.columns
            raise InputError(
                f"{name} {','.join(map(str, box))} lies outside panorama {request.id}, which covers the world's pixels "
                f"{left} to {right} across and {top} to {bottom} down"
            )
    return dataclasses.replace(request, edits=(*request.edits, edit))


def without_last_edit(request: RenderRequest) -> RenderRequest:
    """Undoes the last edit of a request.

    Raises:
        InputError: the request has no edit.
    """
    if not request.edits:
        raise InputError(f"request {request.id} has no edit to undo")
    return dataclasses.replace(request, edits=request.edits[:-1])


def meets(box: Sequence[int], request: RenderRequest) -> bool:
    """Returns whether a box overlaps a panorama, across the ends of a circle too."""
    x, y, width, height = box
    rows, columns = box_windows((x, y, width, height))
    turn_px = request.turn_px
    across = (
        geometry.overlap(ours, theirs)
        for ours, _ in patchwork(columns, turn_px)
        for theirs, _ in patchwork(request.columns, turn_px)
    )
    return geometry.overlap(rows, request.rows) is not None and any(across)
