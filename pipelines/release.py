"""Makes the bundled checkpoint out of a run: ``python -m pipelines.release RUN``.

A generator's run gives the generator and its training state, which is stored next to it in half precision: the
generator as trained (without averaging) and the discriminator. Adam's running squares are omitted: they cover only the
last hundred steps. The detail stage stays as it is. A detail stage's run gives both networks, and the training state
stays as it is.
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
    """Writes the package's checkpoint and, for a generator's run, its training state."""
    url = bundled.resolve(bundled.BUNDLED)
    found = files.load_checkpoint(read_tensors(join(run, CHECKPOINT)), run)
    detail, provenance = found.detail, found.provenance
    if detail is None:
        before = files.load_checkpoint(read_tensors(url), url)
        detail, provenance = before.detail, provenance.copy()
        if detail is not None:
            provenance["detail"] = before.provenance["detail"]
        header, tensors = files.load_state(read_tensors(join(run, STATE), "the state"), run)
        kept = {name: x.half() for name, x in tensors.items() if name.startswith(KEPT)}
        counts = {"steps": header["steps"], "images_before": header["images_before"]}
        write_bytes(state_beside(url), files.save(files.TRAINING_STATE, kept, counts))
    generator = found.generator
    write_bytes(url, files.save_checkpoint(with_mean_w(generator), generator.config, provenance, LICENCE, detail))


if __name__ == "__main__":
    release(sys.argv[1])
