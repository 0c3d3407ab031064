"""From requests to plans: the one place that decides which requests can be rendered, and why others cannot."""

from functools import cache, lru_cache
from typing import NamedTuple

from model.bundled import BUNDLED, resolve
from model.checkpoint import load_checkpoint
from model.config import GeneratorConfig, check_tileable
from model.errors import InputError, one_line
from model.networks.detail import FACTOR
from model.world.definition import check_definition
from model.world.overlay import Overlay, check_overlay
from model.world.scale import ScaledConfig, stage_count
from transforms.panoramas.folder import Held, as_begun, check_plan, look_for, look_up
from transforms.panoramas.manifest import check_manifest
from transforms.panoramas.overlays import read_overlay
from transforms.panoramas.plan import MOST_TILE_PX, Plan
from transforms.panoramas.requests import Refused, RenderRequest, RequestFile, occurs_twice, refused_by
from transforms.panoramas.tiling import fault, size_for, size_text
from transforms.render.options import RenderOptions
from transforms.storage.files import check_folder
from transforms.storage.retry import retried
from transforms.storage.tensor_files import read_tensors


class Examined(NamedTuple):
    """What is known of a request that can be rendered.

    Attributes:
        plan: its plan.
        held: the contents of the folder under its id; None for an id that is new to it.
        networks: the networks of the plan.
    """

    plan: Plan
    held: Held | None
    networks: ScaledConfig


def check_all(options: RenderOptions, planner: "Planner") -> dict[Plan, ScaledConfig]:
    """Returns the plans of a job with the networks of each. Writes nothing.

    Raises:
        InputError: one of the requests cannot be rendered, or the folder of the job is not one.
    """
    check_out(options.out)
    networks: dict[str, tuple[Plan, ScaledConfig]] = {}
    for _, request in options.numbered():
        if isinstance(request, Refused):
            raise InputError(request.reason)
        if request.id in networks:
            raise InputError(occurs_twice(request.id))
        plan, _, config = planner.examine(options, request, retried(look_for, options.out, request.id) is not None)
        networks[request.id] = plan, config
    return dict(networks.values())


def check_any(options: RenderOptions, planner: "Planner") -> Plan | None:
    """Returns the first plan of a job, which it looks for in as many requests as it takes. Writes nothing.

    Returns:
        The plan; None if a slice has none, because other slices may have some.

    Raises:
        InputError: no request can be rendered, or the folder of the job is not one.
        OSError: storage failed in a way that concerns more than a single request.
    """
    check_out(options.out)
    refusals, first = 0, Refused(None, "there is no request")
    for number, request in options.numbered():
        plan = plan_or_refuse(options, request, planner)
        if not isinstance(plan, Refused):
            return plan
        first = first if refusals else Refused(plan.id or options.place(number), plan.reason)
        refusals += 1
    if options.slice is not None:
        return None
    if not isinstance(options.requests, RequestFile):
        raise InputError(first.reason)
    label = options.requests.label
    raise InputError(f"{label}: none of its {refusals} requests can be rendered; {first.id}: {first.reason}")


def plan_or_refuse(options: RenderOptions, request: RenderRequest | Refused, planner: "Planner") -> Plan | Refused:
    """Returns the plan of a request, or why it is refused."""
    if isinstance(request, Refused):
        return request
    try:
        return planner.examine(options, request, retried(look_for, options.out, request.id) is not None).plan
    except OSError:
        raise
    except Exception as error:  # a fault of one request must not end the others' work
        return refused_by(error, request.id)


class Planner:
    """Plans requests. Checkpoints and overlays that several requests or several jobs need are read once."""

    def __init__(self) -> None:
        self.checkpoint = cache(self._checkpoint)
        self.overlay = lru_cache(maxsize=2)(self._overlay)  # most requests have the same ones as the previous request

    def examine(self, options: RenderOptions, request: RenderRequest, is_known: bool) -> Examined:
        """Returns the plan of a request, and what the folder holds under its id. Writes nothing.

        Args:
            options: the options of the job.
            request: the request.
            is_known: whether the folder holds anything under its id. If not, storage is not queried.

        Raises:
            InputError: as `plan` does, or the id exists with another plan, which is not to be replaced.
            OSError: storage failed.
        """
        plan, networks = self.plan(options, request)
        if not is_known:
            return Examined(plan, None, networks)
        held = retried(look_up, options.out, plan)
        if options.tile_px is None and not held.is_of(plan):
            plan, held = retried(as_begun, plan, held)
        if not options.replace:
            check_plan(options.out, plan, held)
        return Examined(plan, held, networks)

    def plan(self, options: RenderOptions, request: RenderRequest) -> tuple[Plan, ScaledConfig]:
        """Returns the plan and the networks of a request.

        Raises:
            InputError: the request's checkpoint is missing or invalid; the tile, the scale or the world does not fit
                it; or an overlay is missing or for another world.
        """
        url = request.checkpoint or options.checkpoint or BUNDLED
        found = self.checkpoint(url)
        if isinstance(found, InputError):
            raise InputError(str(found))
        sha256, networks = found
        config = networks.base
        if request.scale > 1 and not networks.stages:
            raise InputError(
                f"request {request.id}: scale {request.scale} needs a detail stage, which checkpoint {url} lacks; use "
                "scale 1, or a checkpoint of `train --preset detail`"
            )
        unit_px = config.cell_px if request.scale == 1 else max(config.cell_px, FACTOR)
        tile_px = options.tile_px
        if tile_px is None:
            tile_px = size_for(request.height_px, request.width_px, unit_px, request.scale)
        cure = fault(tile_px, unit_px, MOST_TILE_PX)
        if cure:
            raise InputError(f"--tile {size_text(tile_px)}: {cure}")
        try:
            check_definition(request.definition, config, request.scale)
            overlays = self.overlay_checksums(request, config, sha256)
        except InputError as error:
            raise InputError(f"request {request.id}: {error}") from None
        plan = Plan(request, url, sha256, tile_px, options.precision, overlays)
        return plan, self.networks_of(plan)

    def networks_of(self, plan: Plan) -> ScaledConfig:
        """Returns the networks of a plan that this planner has made."""
        found = self.checkpoint(plan.checkpoint_url)
        assert not isinstance(found, InputError)
        networks = found[1]
        return ScaledConfig(networks.base, networks.stages * stage_count(plan.request.scale))

    def overlay_checksums(
        self, request: RenderRequest, config: GeneratorConfig, checkpoint_sha256: str
    ) -> tuple[str, ...]:
        """Returns the sha256 of each overlay of a request, after checking that all of them fit its world."""
        checksums = []
        for name in request.definition.overlay_names:
            overlay = self.overlay(name)
            check_overlay(overlay, name, config, request.definition.cyclic_px, checkpoint_sha256)
            checksums.append(overlay.sha256)
        return tuple(checksums)

    def _overlay(self, url: str) -> Overlay:
        """Reads an overlay.

        Raises:
            InputError: the overlay cannot be read.
        """
        try:
            return read_overlay(url)
        except InputError:
            raise
        except Exception as error:  # stores have errors of their own; other requests have other overlays
            raise InputError(f"overlay {url} cannot be read: {one_line(error)}") from None

    def _checkpoint(self, url: str) -> tuple[str, ScaledConfig] | InputError:
        """Returns a checkpoint's sha256 and networks, or the error, which is found only once too."""
        try:
            found = load_checkpoint(retried(read_tensors, resolve(url)), url)
            check_tileable(found.generator.config, url)
        except InputError as error:
            return error
        except Exception as error:  # stores have errors of their own; other requests have other checkpoints
            return InputError(f"checkpoint {url} cannot be read: {one_line(error)}")
        stages = () if found.detail is None else (found.detail.config,)
        return found.sha256, ScaledConfig(found.generator.config, stages)


def check_out(out: str) -> None:
    """Raises InputError if the output folder is a file, or holds a file that is not a manifest in its place."""
    check_folder(out)
    check_manifest(out)
