"""Makes the bundled checkpoint out of a run: ``python -m pipelines.release RUN``.

The training state is stored next to it in half precision: the generator as trained (without averaging) and the
discriminator. Adam's running squares are omitted: they cover only the last hundred steps.
"""

import sys

from model import bundled
from model import checkpoint as files
from model.world.styles import with_mean_w
from transforms.storage.files import join, write_bytes
from transforms.storage.tensor_files import read_tensors
from transforms.training.run_folder import CHECKPOINT, STATE, state_beside

LICENCE = "Apache-2.0; the photographs it learned from, with their licences, are listed in docs/model-card.md"
KEPT = ("generator.", "discriminator.")


def release(run: str) -> None:
    """Writes the package's checkpoint and training state."""
    checkpoint = files.load_checkpoint(read_tensors(join(run, CHECKPOINT)), run)
    generator = checkpoint.generator
    content = files.save_checkpoint(with_mean_w(generator), generator.config, checkpoint.provenance, LICENCE)
    header, tensors = files.load_state(read_tensors(join(run, STATE), "the state"), run)
    kept = {name: x.half() for name, x in tensors.items() if name.startswith(KEPT)}
    counts = {"steps": header["steps"], "images_before": header["images_before"]}
    url = bundled.resolve(bundled.BUNDLED)
    write_bytes(url, content)
    write_bytes(state_beside(url), files.save(files.TRAINING_STATE, kept, counts))


if __name__ == "__main__":
    release(sys.argv[1])
