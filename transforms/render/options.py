"""The options of a render job, with their checks."""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from model.checks import is_integer
from model.config import precision_name
from model.errors import InputError
from model.world.engine import PRECISIONS
from transforms.panoramas.plan import MOST_TILES_PER_SHARD, REFERENCE, Plan
from transforms.panoramas.requests import Refused, RenderRequest, RequestFile
from transforms.panoramas.tiling import TileSize, area, size_text
from transforms.render.slices import Slice

SHARD_PX, MOST_SHARD_PX = 2**20, 2**28
MOST_MODEL_COPIES = 64
ACCELERATOR = re.compile(
    r"type:[a-z0-9-]+;count:[1-9][0-9]?(;machine_type:[a-z0-9-]+)?(;install-nvidia-driver(:[a-z0-9.]+)?)?"
)


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """The options of a render job.

    Attributes:
        requests: the panoramas, or the file that lists them.
        out: the URL of the folder for all output.
        checkpoint: the URL of the generator for requests that name none; None for the bundled one.
        tile_px: the size of a tile, see `tiling`; None for one that suits each panorama.
        tiles_per_shard: the number of patches per file; None for about `SHARD_PX` pixels.
        keep_patches: whether to keep the patches of finished panoramas.
        replace: whether to render panoramas again whose id exists with another plan.
        repair: whether to check the existing shards, and make damaged ones again.
        precision: the precision of the network's convolutions.
        accelerator: the accelerator of the workers that compute, as Beam's resource hint; None for none.
        model_copies: the number of networks that the processes of a worker machine share; None for one in each process.
        slice: the part of the requests to render; None for all of them.
    """

    requests: tuple[RenderRequest, ...] | RequestFile
    out: str
    checkpoint: str | None = None
    tile_px: TileSize | None = None
    tiles_per_shard: int | None = None
    replace: bool = False
    keep_patches: bool = True
    precision: str = REFERENCE
    repair: bool = False
    accelerator: str | None = None
    model_copies: int | None = None
    slice: Slice | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", precision_name(self.precision))
        if self.precision not in PRECISIONS:
            raise InputError(f"--precision {self.precision}: choose {', '.join(PRECISIONS)}")
        if self.tiles_per_shard is not None:
            self._check_shards(self.tiles_per_shard)
        if not self.out:
            raise InputError("--out is empty; give a folder or URL")
        self._check_workers()

    def _check_shards(self, tiles: int) -> None:
        if not 1 <= tiles <= MOST_TILES_PER_SHARD:
            raise InputError(f"--tiles-per-shard {tiles}: give 1 to {MOST_TILES_PER_SHARD}")
        if self.tile_px is not None and tiles * area(self.tile_px) > MOST_SHARD_PX:
            raise InputError(
                f"--tiles-per-shard {tiles} of --tile {size_text(self.tile_px)}: a shard, which a worker holds in "
                f"memory, may have at most {MOST_SHARD_PX} pixels; make one of the two smaller"
            )

    def _check_workers(self) -> None:
        if self.accelerator is not None and not ACCELERATOR.fullmatch(self.accelerator):
            raise InputError(
                f"--accelerator {self.accelerator!r}: give type:NAME;count:N, perhaps with ;machine_type:NAME and "
                ";install-nvidia-driver, such as 'type:nvidia-l4;count:1;install-nvidia-driver'"
            )
        copies = self.model_copies
        if copies is not None and not (is_integer(copies) and 1 <= copies <= MOST_MODEL_COPIES):
            raise InputError(f"--model-copies {copies}: give 1 to {MOST_MODEL_COPIES}")

    def shard_tiles(self, plan: Plan) -> int:
        """Returns the most tiles in a shard of a plan."""
        return self.tiles_per_shard or min(MOST_TILES_PER_SHARD, max(1, SHARD_PX // plan.tile_area))

    def stores_patches(self, plan: Plan) -> bool:
        """Returns whether patches of a plan will be on storage, if only for a while."""
        return self.keep_patches or plan.tiles > self.shard_tiles(plan)

    def without_requests(self) -> "RenderOptions":
        """Returns the options of the steps of a job, whose size must not depend on the number of requests."""
        return dataclasses.replace(self, requests=())

    def numbered(self) -> Iterator[tuple[int, RenderRequest | Refused]]:
        """Yields the requests of the slice, with their numbers.

        Raises:
            InputError: the file of requests cannot be read.
        """
        file = self.requests
        if isinstance(file, RequestFile):
            requests: Iterable[RenderRequest | Refused] = (file.parse(row.values) for row in file.rows())
        else:
            requests = file
        for number, request in enumerate(requests, start=1):
            if self.slice is None or self.slice.holds(request.id or self.place(number)):
                yield number, request

    def place(self, number: int) -> str:
        """Returns the name of a request that has no id of its own."""
        return (self.requests if isinstance(self.requests, RequestFile) else RequestFile("")).place(number)
