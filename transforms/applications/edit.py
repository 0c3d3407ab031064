"""Edits of requests: those in a request file, and those of rendered panoramas."""

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
from transforms.storage.files import exists, join, read_json

JSON, JSONL = ".json", ".jsonl"


@dataclass(frozen=True, slots=True)
class Edited:
    """A request to be edited, and what it was rendered with.

    Attributes:
        request: as it is.
        others: the requests before it and after it in its file.
        file: where the edited request goes.
        out: the folder of the render job; None where only the request is known.
        tile_px: side of its tiles, if so.
        precision: of the network, if so.
        checkpoint_sha256: of the generator, if so.
    """

    request: RenderRequest
    others: tuple[tuple[RenderRequest, ...], tuple[RenderRequest, ...]]
    file: str
    out: str | None = None
    tile_px: int | None = None
    precision: str | None = None
    checkpoint_sha256: str | None = None

    def requests(self, edited: RenderRequest) -> list[RenderRequest]:
        """Returns what the file then holds."""
        before, after = self.others
        return [*before, edited, *after]


def find_request(url: str, request_id: str | None) -> Edited:
    """Returns the request of a panorama's JSON, or one of a .jsonl of requests.

    Raises:
        InputError: there is none, or several and no id is given.
    """
    if url.endswith(JSONL):
        requests = read_requests(url)
        if request_id is None and len(requests) > 1:
            raise InputError(f"{url} holds {len(requests)} requests; say which by --id")
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
        raise InputError(
            f"{url} does not lie in the folder {PANORAMAS} of a render job; give the .jsonl of its request"
        )
    if request_id not in (None, plan.request.id):
        raise InputError(f"{url} is of request {plan.request.id}, not {request_id}")
    file = join(out, "requests", f"{plan.request.id}{JSONL}")
    return Edited(plan.request, ((), ()), file, out or ".", plan.tile_px, plan.precision, plan.checkpoint_sha256)


def with_edit(request: RenderRequest, edit: Edit) -> RenderRequest:
    """Returns a request with one edit more.

    Raises:
        InputError: a box of the edit does not meet the panorama.
    """
    for name, box in (("--box", edit.box_px), ("--like", edit.like_box_px)):
        if box is not None and not meets(box, request):
            (top, bottom), (left, right) = request.rows, request.columns
            raise InputError(
                f"{name} {','.join(map(str, box))} lies outside of panorama {request.id}, which has the world's pixels "
                f"{left} to {right} across and {top} to {bottom} down"
            )
    return dataclasses.replace(request, edits=(*request.edits, edit))


def without_last_edit(request: RenderRequest) -> RenderRequest:
    """Returns a request with its last edit undone.

    Raises:
        InputError: it has none.
    """
    if not request.edits:
        raise InputError(f"request {request.id} has no edit to undo")
    return dataclasses.replace(request, edits=request.edits[:-1])


def meets(box: Sequence[int], request: RenderRequest) -> bool:
    """Returns whether a box meets a panorama, around the circle if it is one."""
    x, y, width, height = box
    rows, columns = box_windows((x, y, width, height))
    turn_px = request.definition.cyclic_px
    across = (
        geometry.overlap(ours, theirs)
        for ours, _ in patchwork(columns, turn_px)
        for theirs, _ in patchwork(request.columns, turn_px)
    )
    return geometry.overlap(rows, request.rows) is not None and any(across)
