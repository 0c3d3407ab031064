import itertools
import math

import pytest
import torch

from model.config import PRESETS
from model.networks.discriminator import Discriminator
from model.networks.structure import StructureSynthesizer
from model.training.losses import (
    ADVERSARIAL,
    diversity,
    hinge_discriminator,
    hinge_generator,
    logistic_discriminator,
    logistic_generator,
    path_length_penalty,
    r1_penalty,
    vertical_task,
)

REAL = [2.0, -0.5, 0.25]
FAKE = [-1.5, 3.0, 0.5]


def softplus(x):
    return math.log(1 + math.exp(x))


def mean(values):
    return sum(values) / len(values)


def verdicts(values):
    return [torch.tensor(values)[:, None]]


def test_the_logistic_losses_by_hand():
    expected = mean([softplus(-x) for x in REAL]) + mean([softplus(x) for x in FAKE])
    assert logistic_discriminator(verdicts(REAL), verdicts(FAKE)).item() == pytest.approx(expected)
    assert logistic_generator(verdicts(FAKE)).item() == pytest.approx(mean([softplus(-x) for x in FAKE]))


def test_the_hinge_losses_by_hand():
    expected = (0 + 1.5 + 0.75) / 3 + (0 + 4 + 1.5) / 3
    assert hinge_discriminator(verdicts(REAL), verdicts(FAKE)).item() == pytest.approx(expected)
    assert hinge_generator(verdicts(FAKE)).item() == pytest.approx(-2 / 3)


def test_the_paper_is_logistic_and_the_projected_recipe_is_hinge():
    assert ADVERSARIAL["paper"] == (logistic_discriminator, logistic_generator)
    assert ADVERSARIAL["projected"] == (hinge_discriminator, hinge_generator)


@pytest.mark.parametrize("recipe", ADVERSARIAL)
def test_all_values_of_all_maps_count_alike(recipe):
    values = torch.randn(2, 14, generator=torch.Generator().manual_seed(1))
    one = values[0][:, None], values[1][:, None]
    several = [[x[:4].view(1, 1, 2, 2), x[4:13].view(1, 1, 3, 3), x[13:].view(1, 1, 1, 1)] for x in values]
    discriminator, generator = ADVERSARIAL[recipe]
    assert torch.allclose(discriminator(*several), discriminator([one[0]], [one[1]]))
    assert torch.allclose(generator(several[1]), generator([one[1]]))


@pytest.mark.parametrize("recipe", ADVERSARIAL)
def test_each_side_is_better_off_for_moving_its_own_way(recipe):
    """The discriminator pushes real up and fake down; the generator pushes fake up."""
    real, fake = (torch.tensor(x)[:, None].requires_grad_() for x in (REAL, FAKE))
    discriminator, generator = ADVERSARIAL[recipe]
    for_real, for_fake = torch.autograd.grad(discriminator([real], [fake]), [real, fake])
    assert (for_real <= 0).all()
    assert (for_fake >= 0).all()
    assert for_real.min() < 0 < for_fake.max()
    (for_generator,) = torch.autograd.grad(generator([fake]), [fake])
    assert (for_generator < 0).all()


def test_the_vertical_task_is_the_mean_distance():
    assert vertical_task(torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.0, 0.5, 0.25])).item() == pytest.approx(0.75)


def test_the_diversity_loss_by_hand():
    """The mean of |Δz_S| is 0.5, that of |Δz_l| is 2."""
    z_s, twin_z_s = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[2.0, 2.0, 3.0, 3.0]])
    z_l, twin_z_l = torch.tensor([[0.0, 3.0]]), torch.tensor([[1.0, 0.0]])
    assert diversity(z_s, twin_z_s, z_l, twin_z_l).item() == pytest.approx(1 / (0.25 + 1e-5), rel=1e-6)


def test_structures_that_ignore_z_l_cost_much_but_not_infinitely_much():
    z_s, z_l = torch.ones(1, 4), torch.randn(2, 4)
    assert diversity(z_s, z_s, z_l[0], z_l[1]).item() == pytest.approx(1e5)


def test_following_the_diversity_loss_raises_the_distance_between_structures():
    torch.manual_seed(0)
    structure = StructureSynthesizer(PRESETS["tiny"])
    z_l, twin_z_l = torch.randn(2, 2, 8, 28, 28)
    coordinates, z_g = torch.randn(2, 3, 28, 28), torch.randn(2, 16)
    optimizer = torch.optim.SGD(structure.parameters(), 0.05)
    distances = []
    for _ in range(6):
        z_s, twin_z_s = structure(z_l, coordinates, z_g), structure(twin_z_l, coordinates, z_g)
        distances.append((z_s - twin_z_s).abs().mean().item())
        optimizer.zero_grad()
        diversity(z_s, twin_z_s, z_l, twin_z_l).backward()
        optimizer.step()
    assert all(after > before for before, after in itertools.pairwise(distances))


def test_r1_by_hand_for_a_linear_judge():
    """For the verdict 2 Σx over 3·2·2 values, the squared norm is 4·12."""
    pictures = torch.randn(5, 3, 2, 2, requires_grad=True)
    maps = [pictures.sum(dim=(1, 2, 3))[:, None], pictures.sum(dim=1, keepdim=True)]
    assert r1_penalty(maps, pictures).item() == pytest.approx(48)


def test_r1_equals_a_finite_difference_of_the_discriminator():
    torch.manual_seed(4)
    discriminator = Discriminator(7, 4).double()
    pictures = torch.randn(2, 3, 7, 7).double()

    def total(x):
        return sum(verdict.sum().item() for verdict in discriminator(x)[0])

    step, squares = 1e-6, 0.0
    for index in range(pictures.numel()):
        nudge = torch.zeros_like(pictures).view(-1)
        nudge[index] = step
        nudge = nudge.view_as(pictures)
        squares += ((total(pictures + nudge) - total(pictures - nudge)) / (2 * step)) ** 2
    pictures.requires_grad_()
    assert r1_penalty(discriminator(pictures)[0], pictures).item() == pytest.approx(squares / 2, rel=1e-5)


def test_the_gradient_of_r1_reaches_the_weights():
    """The check is a finite difference along a random direction of all weights."""
    torch.manual_seed(5)
    discriminator = Discriminator(7, 4).double()
    pictures = torch.randn(3, 3, 7, 7).double().requires_grad_()

    def penalty():
        return r1_penalty(discriminator(pictures)[0], pictures)

    weight = discriminator.blocks[0].skip.weight
    (gradient,) = torch.autograd.grad(penalty(), [weight])
    direction = torch.randn_like(weight)
    values = []
    for step in (1e-6, -1e-6):
        weight.data.add_(step * direction)
        values.append(penalty().item())
        weight.data.sub_(step * direction)
    assert (gradient * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


def test_the_path_length_of_a_linear_network_is_its_gain():
    """For pictures that are ws times a gain, the Jacobian is gain·identity, so |Jᵀy| = gain·|y|/√(pixels)."""
    random = torch.Generator().manual_seed(0)
    ws = torch.randn(4, 1, 3 * 25, generator=random, requires_grad=True)
    noise = torch.randn(4, 3, 5, 5, generator=random)
    gain = torch.tensor(3.0, requires_grad=True)
    penalty, lengths = path_length_penalty((ws * gain).reshape(4, 3, 5, 5), ws, torch.tensor(2.0), noise)
    expected = 3 * noise.flatten(1).norm(dim=1) / 5
    assert torch.allclose(lengths, expected)
    assert penalty.item() == pytest.approx((expected - 2).square().mean().item())
    penalty.backward()
    assert gain.grad > 0  # lengths above their mean should shrink


def test_path_lengths_of_layers_are_averaged_as_squares():
    ws = torch.zeros(1, 3, 2, requires_grad=True)
    pictures = (ws * torch.tensor([1.0, 2.0, 4.0])[None, :, None]).sum(dim=(1, 2)).reshape(1, 1, 1, 1)
    _, lengths = path_length_penalty(pictures, ws, torch.zeros(()), torch.ones(1, 1, 1, 1))
    assert lengths.item() == pytest.approx(((2 * 1 + 2 * 4 + 2 * 16) / 3) ** 0.5)
