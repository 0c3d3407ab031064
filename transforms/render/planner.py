"""From requests to plans: the one place that decides which requests can be rendered, and why others cannot."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
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
from transforms.panoramas.folder import Held, as_begun, check_plan, known_ids, look_up
from transforms.panoramas.manifest import MANIFEST, read_manifest
from transforms.panoramas.overlays import read_overlay
from transforms.panoramas.plan import MOST_TILE_PX, Plan
from transforms.panoramas.requests import Refused, RenderRequest, refused_by
from transforms.panoramas.tiling import fault, size_for, size_text
from transforms.render.options import RenderOptions
from transforms.storage.files import check_folder, exists, join
from transforms.storage.retry import retried
from transforms.storage.tensor_files import read_tensors


@dataclass(frozen=True)
class Planned:
    """The plans of a job's requests, before anything is rendered.

    Attributes:
        options: the options of the job.
        networks: a plan for each request that can be rendered, with its networks.
        held: the contents of the folder under the ids of these plans; None for an id that is new to it.
        refused: the reason for each other request, by its name in the manifest.
    """

    options: RenderOptions
    networks: dict[Plan, ScaledConfig]
    held: dict[Plan, Held]
    refused: dict[str, str]

    def check_any(self) -> None:
        """Raises InputError if no request can be rendered; other slices may hold some that can be."""
        if self.networks or self.options.slice:
            return
        name, reason = next(iter(self.refused.items()))
        if self.options.source:
            reason = (
                f"{self.options.source}: none of its {len(self.refused)} requests can be rendered; {name}: {reason}"
            )
        raise InputError(reason)

    def check_all(self) -> None:
        """Raises InputError if one of the requests cannot be rendered."""
        for reason in self.refused.values():
            raise InputError(reason)


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


def make_plans(options: RenderOptions) -> Planned:
    """Plans the requests of a job, some of which may be refused; see `Planner.plans`."""
    return Planner().plans(options)


class Planner:
    """Plans jobs. Checkpoints and overlays that several requests or several jobs need are read once."""

    def __init__(self) -> None:
        self.checkpoint = cache(self._checkpoint)
        self.overlay = lru_cache(maxsize=2)(self._overlay)  # most requests have the same ones as the previous request

    def plans(self, options: RenderOptions) -> Planned:
        """Plans the requests of a job, some of which may be refused. Writes nothing.

        Raises:
            InputError: the folder of the job is a file, or holds a damaged manifest.
            OSError: storage failed in a way that concerns more than a single request.
        """
        check_out(options.out)
        known = retried(known_ids, options.out)
        planned = Planned(options, {}, {}, {})
        refused: dict[int, Refused] = {}
        taken: set[str] = set()
        for number, request in options.chosen():
            if isinstance(request, Refused):
                refused[number] = request
                continue
            try:
                if request.id in taken:
                    raise InputError(f"request id {request.id} occurs twice; each panorama needs its own")
                plan, held, config = self.examine(options, request, request.id in known)
                if held is not None:
                    planned.held[plan] = held
            except OSError:
                raise
            except Exception as error:  # a fault of one request must not end the others' work
                refused[number] = refused_by(error, request.id)
            else:
                taken.add(request.id)
                planned.networks[plan] = config
        planned.refused.update(reasons_by_name(options, refused, known | taken))
        return planned

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
        stages = networks.stages * stage_count(request.scale)
        return Plan(request, url, sha256, tile_px, options.precision, overlays), ScaledConfig(config, stages)

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
    if retried(exists, join(out, MANIFEST)):
        retried(read_manifest, out)


def reasons_by_name(options: RenderOptions, refused: Mapping[int, Refused], taken: Collection[str]) -> dict[str, str]:
    """Returns refused rows' reasons by id; or by place in the file, for a row with no id or one already taken."""
    reasons: dict[str, str] = {}
    for number, row in refused.items():
        free = row.id is not None and row.id not in taken and row.id not in reasons
        reasons[str(row.id) if free else options.place(number)] = row.reason
    return reasons
