"""What a person asks of a render job."""

from dataclasses import dataclass

from model.engine import PRECISIONS
from model.errors import InputError
from transforms.plan import MOST_TILES_PER_SHARD, REFERENCE
from transforms.requests import Refused, RenderRequest

MOST_SHARD_PX = 2**28


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """What a person asks of a render job.

    Attributes:
        requests: the panoramas, and the rows of a file that ask for none.
        out: URL of the folder for everything.
        checkpoint: URL of the generator for requests that name none; None for the bundled one.
        tile_px: side of a tile.
        tiles_per_shard: how many patches go into one file.
        replace: render panoramas anew whose id is known under another plan.
        repair: check the shards that are there, and make the bad ones again.
        precision: of the network's convolutions.
        source: name of the file that the requests stand in; empty where there is none.
    """

    requests: tuple[RenderRequest | Refused, ...]
    out: str
    checkpoint: str | None = None
    tile_px: int = 256
    tiles_per_shard: int = 16
    replace: bool = False
    precision: str = REFERENCE
    repair: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"--precision {self.precision}: choose {', '.join(PRECISIONS)}")
        if not 1 <= self.tiles_per_shard <= MOST_TILES_PER_SHARD:
            raise InputError(f"--tiles-per-shard {self.tiles_per_shard}: give 1 to {MOST_TILES_PER_SHARD}")
        if self.tiles_per_shard * self.tile_px**2 > MOST_SHARD_PX:
            raise InputError(
                f"--tiles-per-shard {self.tiles_per_shard} of --tile {self.tile_px}: a shard, which a worker holds in "
                f"memory, may have {MOST_SHARD_PX} pixels at the most; make one of the two smaller"
            )
        if not self.out:
            raise InputError("--out is empty; give a folder or URL")

    def place(self, number: int | str) -> str:
        """What a row of the requests' file is called that has no id of its own: never an id."""
        return f"{self.source}, request {number}".removeprefix(", ")
