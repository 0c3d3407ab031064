"""From requests to plans: the one place that decides which requests can be rendered, and why others cannot."""

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
    """The plans of a job's requests.

    Attributes:
        networks: a plan for each request that can be rendered, with its network.
        refused: the reason for each other request, by its name in the manifest.
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
    """Plans the requests of a job, some of which may be refused.

    Raises:
        OSError: storage failed in a way that concerns more than a single request.
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
        except Exception as error:  # a fault of one request must not end the others' work
            refused[number] = refused_by(error, request.id)
        else:
            networks[plan] = config
    return Planned(networks, named(options, refused, known | planner.planned))


def check_requests(options: RenderOptions) -> None:
    """Raises InputError if a request of a job cannot be rendered, or if there is nowhere to write."""
    check_out(options)
    for reason in make_plans(options).refused.values():
        raise InputError(reason)


def check_out(options: RenderOptions) -> None:
    """Raises InputError if the output folder is a file, or holds a file that is not a manifest in its place."""
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
    """Plans requests one after the other; files that several of them need are read once."""

    def __init__(self, options: RenderOptions, known: Collection[str]):
        self.options, self.known = options, known
        self.planned: set[str] = set()
        self.checkpoint = cache(self._checkpoint)
        self.overlay = lru_cache(maxsize=2)(read_overlay)  # most requests have the same overlays as the previous one

    def plan(self, request: RenderRequest) -> tuple[Plan, GeneratorConfig]:
        """Returns the plan and the network of a request.

        Raises:
            InputError: the request's id occurs twice or exists with another plan, its checkpoint is missing or invalid,
                the tile or the world does not fit the checkpoint, or an overlay is missing or for another world.
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
        """Returns the sha256 of each overlay of a request, after checking that all of them fit its world."""
        checksums = []
        for name in request.definition.overlay_names:
            overlay = self.overlay(name)
            check_overlay(overlay, name, config, request.definition.cyclic_px, checkpoint_sha256)
            checksums.append(overlay.sha256)
        return tuple(checksums)

    def _checkpoint(self, url: str) -> tuple[str, GeneratorConfig] | InputError:
        """Returns a checkpoint's sha256 and network, or the error, which is found only once too."""
        try:
            found = load_checkpoint(retried(read_tensors, resolve(url)), url)
            check_tileable(found.generator.config, url)
        except InputError as error:
            return error
        except Exception as error:  # stores have errors of their own; other requests have other checkpoints
            return InputError(f"checkpoint {url} cannot be read: {one_line(error)}")
        return found.sha256, found.generator.config
