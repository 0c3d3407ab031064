import dataclasses

import pytest
import torch

from model import checkpoint
from model.config import DETAIL_RECIPE, PRESETS, DetailConfig
from model.errors import DivergenceError, InputError
from model.networks.detail import enlarge
from model.networks.generator import Generator
from model.training.detail import DetailTrainer
from model.training.processes import Processes
from model.training.reduction import NOISE, cubic_kernels, reduce

TINY = PRESETS["tiny"]
SMALL_STAGE = DetailConfig(channels=4, blocks=1, up_channels=(4, 3))
RECIPE = dataclasses.replace(DETAIL_RECIPE, batch=2, patch_px=128, adversarial_after=0)


def photographs(step, batch=2):
    """Returns sharp patches [N,3,128,128]: fine stripes below an even sky."""
    random = torch.Generator().manual_seed(step)
    pictures = torch.rand(batch, 3, 1, 1, generator=random).expand(-1, -1, 128, 128) - 0.5
    stripes = torch.rand(batch, 1, 64, 128, generator=random) - 0.5
    return torch.cat([pictures[:, :, :64], pictures[:, :, 64:] + stripes], dim=2)


def trainer(config=RECIPE, **options):
    return DetailTrainer(TINY, SMALL_STAGE, config, **options)


def train(trainer, steps):
    return [trainer.step(photographs(trainer.steps)) for _ in range(steps)]


def stored(trainer):
    header = {"steps": trainer.steps, "images_before": trainer.images_before}
    return checkpoint.save(checkpoint.TRAINING_STATE, trainer.state(), header)


def resumed(content, config=RECIPE):
    header, tensors = checkpoint.load_state(content, "state")
    again = trainer(config)
    again.load_state(tensors, header["steps"], header["images_before"])
    return again


def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not_bit_for_bit():
    whole, first = trainer(), trainer()
    losses = train(whole, 3)
    in_parts = train(first, 2)
    content = stored(first)
    torch.manual_seed(77)
    second = resumed(content)
    assert in_parts + train(second, 1) == losses
    assert stored(second) == stored(whole)
    assert second.images == 6


def test_a_step_leaves_the_base_as_it_is_and_changes_everything_else():
    one = trainer()
    before = {name: x.clone() for name, x in one.state().items()}
    train(one, 2)
    changed = {name.split(".")[0] for name, x in one.state().items() if not torch.equal(x, before.get(name, x + 1))}
    assert changed == {"detail", "ema", "discriminator", "g_optimizer", "d_optimizer"}


def test_pictures_reduced_again_come_to_agree_with_the_base():
    """With a stage that starts far from it, by the consistency loss alone."""
    only = dataclasses.replace(RECIPE, adversarial_weight=0.0, pixel_weight=0.0, feature_weight=0.0, detail_lr=3e-2)
    one = trainer(only)
    torch.nn.init.constant_(one.detail.to_rgb.bias, 0.3)
    losses = [entry["consistency"] for entry in train(one, 8)]
    assert losses[-1] < 0.75 * losses[0]


def test_the_pixels_that_are_compared_are_those_that_the_base_determines():
    """A bicubically enlarged picture, which an untrained stage gives, agrees with a smooth photograph."""
    one = trainer()
    assert (one.seen.start, one.seen.stop) == (26, 102)
    rows = torch.linspace(-0.5, 0.5, 128)[:, None].expand(1, 3, 128, 128)
    enlarged = enlarge(torch.nn.functional.avg_pool2d(rows, 4))
    assert (enlarged - rows[:, :, 8:-8, 8:-8]).abs().max() < 1e-6


def test_a_batch_that_cannot_be_split_is_refused():
    with pytest.raises(InputError, match="a batch of 2 cannot be split evenly over 3 processes"):
        trainer(processes=Processes(count=3))


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("ema.head.weight"),
        lambda tensors: tensors.update({"detail.head.weight": torch.zeros(3)}),
        lambda tensors: tensors.update({"generator.x": torch.zeros(3)}),
        lambda tensors: tensors.pop("base.structure.blocks.0.bias"),
    ],
)
def test_a_state_of_another_trainer_is_refused_in_one_line(change):
    one = trainer()
    tensors = one.state()
    change(tensors)
    with pytest.raises(InputError, match="the training state"):
        one.load_state(tensors, 0, 0)


def test_a_loss_that_is_not_finite_ends_the_run():
    with pytest.raises(DivergenceError, match="diverged at image 0"):
        trainer().step(photographs(0) * float("nan"))


def test_the_base_is_drawn_as_its_own_training_draws_it():
    """Windows are the generator's own pictures, at full precision, and differ from step to step."""
    one = trainer()
    first = one.draw_worlds(2, torch.Generator().manual_seed(1))
    assert first.shape == (2, 3, 32, 32)
    assert isinstance(one.base, Generator)
    assert not torch.equal(first, one.draw_worlds(2, torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("width", [0.8, 1.0, 1.5])
def test_reducing_keeps_brightness_and_place(width):
    kernel = cubic_kernels(torch.tensor([width]))[0]
    offsets = torch.arange(24) - 11.5
    assert kernel.sum().item() == pytest.approx(1)
    assert (kernel * offsets).sum().item() == pytest.approx(0, abs=1e-5)


def test_reduced_photographs_vary_about_the_plain_one():
    picture = torch.nn.functional.avg_pool2d(photographs(3), 8, stride=1, padding=4)[:1, :, :128, :128]
    plain = torch.nn.functional.avg_pool2d(picture, 4)
    reduced = reduce(picture.expand(64, -1, -1, -1), torch.Generator().manual_seed(0))
    assert reduced.shape == (64, 3, 32, 32)
    inner = slice(4, -4)
    differences = (reduced - plain)[:, :, inner, inner].abs().mean(dim=(1, 2, 3))
    assert 0 < differences.min() < differences.median() < differences.max() < 2 * NOISE
