"""The checkpoint that comes with the package; ``python -m pipelines.release RUN`` makes it out of a run.

Beside the checkpoint lies what training needs to go on from it, in half precision: the generator as it was and the
discriminator. Adam's running squares are left away; they look back on a hundred steps only.
"""

import sys
from pathlib import Path

BUNDLED = "bundled"
WEIGHTS = Path(__file__).parent.parent / "model" / "weights"
BUNDLED_CHECKPOINT = str(WEIGHTS / "small.safetensors")
LICENCE = "Apache-2.0; the photographs it learned from, with their licences, are listed in docs/model-card.md"


def release(run: str) -> None:
    """Makes the bundled checkpoint and its training state out of a run's."""
    from model import checkpoint as files
    from transforms.run_folder import CHECKPOINT, STATE, state_beside
    from transforms.storage import join, read_bytes, write_bytes

    checkpoint = files.load_checkpoint(read_bytes(join(run, CHECKPOINT)), run)
    generator = checkpoint.generator
    content = files.save_checkpoint(generator.state_dict(), generator.config, checkpoint.provenance, LICENCE)
    header, tensors = files.load(files.TRAINING_STATE, read_bytes(join(run, STATE)), run)
    kept = {name: x.half() for name, x in tensors.items() if name.startswith(("generator.", "discriminator."))}
    counts = {"steps": header["steps"], "images_before": header["images_before"]}
    write_bytes(BUNDLED_CHECKPOINT, content)
    write_bytes(state_beside(BUNDLED_CHECKPOINT), files.save(files.TRAINING_STATE, kept, counts))


if __name__ == "__main__":
    release(sys.argv[1])
