"""Requests to plans: the one place that says which requests can be rendered, and why others cannot."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from model.bundled import BUNDLED, resolve
from model.checkpoint import load_checkpoint
from model.config import GeneratorConfig, check_tileable
from model.errors import InputError, one_line
from model.world.definition import check_definition
from model.world.overlay import check_overlay
from transforms.panoramas.folder import check_plan, known_ids
from transforms.panoramas.manifest import MANIFEST, read_manifest
from transforms.panoramas.overlays import read_overlay
from transforms.panoramas.plan import MOST_TILE_PX, Plan
from transforms.panoramas.requests import Refused, RenderRequest, refused_by
from transforms.render.options import RenderOptions
from transforms.storage.files import check_folder, exists, join
from transforms.storage.retry import retried
from transforms.storage.tensor_files import read_tensors


@dataclass(frozen=True)
class Planned:
    """What becomes of the requests of a job.

    Attributes:
        networks: a plan for each request that can be rendered, with the network that it is for.
        refused: why each other cannot be, by its name in the manifest.
    """

    networks: dict[Plan, GeneratorConfig]
    refused: dict[str, str]

    def check(self, source: str) -> None:
        """Raises InputError if no request can be rendered; `source` is the name of their file, or empty."""
        if self.networks:
            return
        name, reason = next(iter(self.refused.items()))
        if source:
            reason = f"{source}: none of its {len(self.refused)} requests can be rendered; {name}: {reason}"
        raise InputError(reason)


def make_plans(options: RenderOptions) -> Planned:
    """Plans the requests of a job, of which some may be refused.

    Raises:
        OSError: storage failed where it is no single request's matter.
    """
    known = retried(known_ids, options.out)
    planner = Planner(options, known)
    networks: dict[Plan, GeneratorConfig] = {}
    refused: dict[int, Refused] = {}
    for number, request in enumerate(options.requests, start=1):
        if isinstance(request, Refused):
            refused[number] = request
            continue
        try:
            plan, config = planner.plan(request)
        except OSError:
            raise
        except Exception as error:  # one request's fault ends no other's work
            refused[number] = refused_by(error, request.id)
        else:
            networks[plan] = config
    return Planned(networks, named(options, refused, known | planner.planned))


def check_requests(options: RenderOptions) -> None:
    """Raises InputError if one of the requests of a job cannot be rendered, or there is nowhere to."""
    check_out(options)
    for reason in make_plans(options).refused.values():
        raise InputError(reason)


def check_out(options: RenderOptions) -> None:
    """Raises InputError if the folder for everything is a file, or holds a manifest that is none."""
    check_folder(options.out)
    if retried(exists, join(options.out, MANIFEST)):
        retried(read_manifest, options.out)


def named(options: RenderOptions, refused: Mapping[int, Refused], taken: Collection[str]) -> dict[str, str]:
    """Returns refused rows' reasons by id; or by place in the file, for a row with no id or one already taken."""
    reasons: dict[str, str] = {}
    for number, row in refused.items():
        free = row.id is not None and row.id not in taken and row.id not in reasons
        reasons[str(row.id) if free else options.place(number)] = row.reason
    return reasons


class Planner:
    """Plans requests one after the other; what several of them need is read once."""

    def __init__(self, options: RenderOptions, known: Collection[str]):
        self.options, self.known = options, known
        self.planned: set[str] = set()
        self.checkpoint = cache(self._checkpoint)
        self.overlay = lru_cache(maxsize=2)(read_overlay)  # most requests have those of the one before

    def plan(self, request: RenderRequest) -> tuple[Plan, GeneratorConfig]:
        """Returns the plan of a request, and the network that it is for.

        Raises:
            InputError: the request's id has been planned or is known under another plan, its checkpoint is missing or
                is none, the tile or the world does not fit that, or an overlay is missing or of another world.
        """
        if request.id in self.planned:
            raise InputError(f"request id {request.id} occurs twice; each panorama needs its own")
        options, url = self.options, request.checkpoint or self.options.checkpoint or BUNDLED
        found = self.checkpoint(url)
        if isinstance(found, InputError):
            raise InputError(str(found))
        sha256, config = found
        cell_px = config.cell_px
        if not 1 <= options.tile_px <= MOST_TILE_PX or options.tile_px % cell_px:
            cure = f"give a multiple of {cell_px}, the network's cell, up to {MOST_TILE_PX}"
            raise InputError(f"--tile {options.tile_px}: {cure}")
        try:
            check_definition(request.definition, config)
            overlays = self.overlay_checksums(request, config, sha256)
        except InputError as error:
            raise InputError(f"request {request.id}: {error}") from None
        plan = Plan(request, url, sha256, options.tile_px, options.precision, overlays)
        if not options.replace and request.id in self.known:
            retried(check_plan, options.out, plan)
        self.planned.add(request.id)
        return plan, config

    def overlay_checksums(
        self, request: RenderRequest, config: GeneratorConfig, checkpoint_sha256: str
    ) -> tuple[str, ...]:
        """Returns the sha256 of each overlay of a request, all of which fit its world."""
        checksums = []
        for name in request.definition.overlay_names:
            overlay = self.overlay(name)
            check_overlay(overlay, name, config, request.definition.cyclic_px, checkpoint_sha256)
            checksums.append(overlay.sha256)
        return tuple(checksums)

    def _checkpoint(self, url: str) -> tuple[str, GeneratorConfig] | InputError:
        """Returns a checkpoint's sha256 and network, or what is wrong with it: that too is found out once."""
        try:
            found = load_checkpoint(retried(read_tensors, resolve(url)), url)
            check_tileable(found.generator.config, url)
        except InputError as error:
            return error
        except Exception as error:  # stores have errors of their own; other requests have other checkpoints
            return InputError(f"checkpoint {url} cannot be read: {one_line(error)}")
        return found.sha256, found.generator.config
