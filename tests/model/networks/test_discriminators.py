import copy

import pytest
import torch
from torch.nn import functional

from model.config import PRESETS, recipe_for
from model.networks.discriminator import Discriminator, ResidualBlock, minibatch_deviation, smooth
from model.networks.projected import ProjectedDiscriminator, enlarge_at_random
from model.training.trainer import build_discriminator


@pytest.fixture(scope="module")
def discriminator():
    torch.manual_seed(0)
    return Discriminator(101, 16)


@pytest.fixture(scope="module")
def projected():
    torch.manual_seed(0)
    return ProjectedDiscriminator(101)


def pictures(n, side=101, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def positions(n):
    return torch.linspace(-0.8, 0.7, n)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_a_batch_of_any_size_is_judged(discriminator, n):
    verdicts, vertical = discriminator(pictures(n))
    assert [x.shape for x in verdicts] == [(n, 1)]
    assert vertical.shape == (n,)
    (verdicts[0].sum() + vertical.sum()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in discriminator.parameters())


def test_sides_halve_from_101_to_3(discriminator):
    x, sides = discriminator.from_rgb(pictures(1)), [101]
    for block in discriminator.blocks:
        x = block(x)
        sides.append(x.shape[3])
        assert x.shape[2] == x.shape[3]
    assert sides == [101, 50, 25, 12, 6, 3]


@pytest.mark.parametrize("side", [7, 10, 15, 29, 64, 101, 128, 197])
def test_a_patch_of_any_side_ends_at_3_to_5(side):
    network = Discriminator(side, 4)
    assert network(pictures(2, side))[1].shape == (2,)
    assert network.hidden.weight.shape[1] in (4 * 9, 4 * 16, 4 * 25)


@pytest.mark.parametrize("side", [6, 7, 12, 25, 50, 101])
def test_both_branches_of_a_block_look_at_the_same_place(side):
    """Output i of each branch is centred on 2i + 1/2 of the input: the centroid of the inputs that it depends on."""
    positions = torch.arange(side).double()
    outputs = side // 2
    weight = torch.ones(1, 1, 3, 3).double()
    branches = [
        lambda x: functional.conv2d(smooth(x, 3), weight, stride=2),
        lambda x: smooth(x, 1)[..., ::2, ::2],
    ]
    for branch in branches:
        x = torch.ones(1, 1, side, side).double().requires_grad_()
        y = branch(x)
        assert y.shape[2:] == (outputs, outputs)
        for index in range(1, outputs - 2):
            (gradient,) = torch.autograd.grad(y[0, 0, index, outputs // 2], x, retain_graph=True)
            profile = gradient[0, 0].sum(dim=1)
            assert (profile @ positions / profile.sum()).item() == pytest.approx(2 * index + 0.5)


def test_a_block_is_the_sum_of_its_branches_written_out():
    torch.manual_seed(1)
    block = ResidualBlock(5, 7).double().requires_grad_(False)
    for name, parameter in block.named_parameters():
        if name.endswith("bias"):
            parameter.normal_()
    x = torch.randn(2, 5, 13, 13).double()
    taps = torch.tensor([1.0, 3, 3, 1]).double() / 8
    kernel = torch.outer(taps, taps).repeat(5, 1, 1, 1)

    def plain(convolution, x, **options):
        weight = convolution.weight / convolution.weight[0].numel() ** 0.5
        return functional.conv2d(x, weight, convolution.bias, **options)

    def active(x):
        return torch.where(x > 0, x, 0.2 * x) * 2**0.5

    main = active(plain(block.first, x, padding=1))
    main = active(plain(block.second, functional.conv2d(main, kernel, padding=2, groups=5), stride=2))
    skip = plain(block.skip, functional.conv2d(x, kernel, padding=1, groups=5)[..., ::2, ::2])
    assert block(x).shape == (2, 7, 6, 6)
    assert torch.allclose(block(x), (main + skip) / 2**0.5, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_the_deviation_is_one_more_channel(n):
    x = torch.randn(n, 6, 3, 3)
    y = minibatch_deviation(x)
    assert y.shape == (n, 7, 3, 3)
    assert torch.equal(y[:, :6], x)
    assert (y[:, 6] == y[:, 6, :1, :1]).all()


def test_the_deviation_by_hand():
    """Two pictures of two values have deviations 1 and 3, so the mean is 2."""
    x = torch.tensor([[1.0, 10.0], [3.0, 4.0]])[:, :, None, None]
    assert minibatch_deviation(x)[:, 2, 0, 0].tolist() == pytest.approx([2, 2])


def test_groups_are_of_four_neighbours_and_the_last_is_filled_from_the_start():
    values = torch.tensor([0.0, 0, 2, 2, 5, 9])
    deviations = minibatch_deviation(values[:, None, None, None])[:, 1, 0, 0]
    last = torch.tensor([5.0, 9, 0, 0]).std(unbiased=False).item()
    assert deviations.tolist() == pytest.approx([1, 1, 1, 1, last, last], abs=1e-6)


def test_one_picture_alone_has_almost_no_deviation_and_a_finite_gradient():
    x = torch.randn(1, 4, 3, 3, requires_grad=True)
    y = minibatch_deviation(x)
    assert y[0, 4].max() < 1e-3
    y.sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("side", [101, 128])
def test_projected_verdicts_are_maps_of_every_scale_and_of_pixels(projected, side):
    judge = projected if side == 101 else ProjectedDiscriminator(side)
    verdicts, vertical = judge(pictures(2, side), positions(2))
    assert vertical.shape == (2,)
    assert [x.shape[:2] for x in verdicts] == [(2, 1)] * 5
    assert all(3 <= x.shape[2] == x.shape[3] <= 6 for x in verdicts)


@pytest.mark.parametrize("side", [PRESETS[name].patch_px for name in ("small", "small-nci")])
def test_a_projected_judge_of_patches_takes_enlarged_ones_too(projected, side):
    judge = projected if side == 101 else ProjectedDiscriminator(side)
    verdicts, vertical = judge(pictures(3, 128), positions(3))
    assert len(verdicts) == 5
    assert vertical.shape == (3,)


@torch.no_grad()
@pytest.mark.parametrize("by_position", [True, False])
def test_verdicts_of_all_heads_depend_on_the_position_and_what_is_predicted_does_not(by_position):
    judge, same = ProjectedDiscriminator(101, by_position).eval(), pictures(1).expand(2, -1, -1, -1)
    verdicts, predicted = judge(same, positions(2))
    assert predicted[0] == pytest.approx(predicted[1].item(), abs=1e-6)
    apart = [(x[0] - x[1]).abs().max().item() for x in verdicts]
    assert all(x > 1e-3 for x in apart) if by_position else all(x < 1e-6 for x in apart)


def test_a_network_without_coordinates_is_judged_alike_at_every_height():
    network = PRESETS["small-nci"]
    judge = build_discriminator(network, recipe_for(network, "projected"))
    assert not any("by_position" in name for name, _ in judge.named_parameters())


def test_only_the_heads_train(projected):
    """A step of an optimiser over all trainable parameters changes the heads and nothing else."""
    judge = copy.deepcopy(projected)
    frozen = [*judge.features.named_buffers(), *judge.projection.named_parameters()]
    before = {name: x.clone() for name, x in frozen}
    assert len(before) > 100
    trained = [parameter for parameter in judge.parameters() if parameter.requires_grad]
    heads = [*judge.heads.parameters(), *judge.pixel_head.parameters(), *judge.vertical.parameters()]
    assert {id(x) for x in trained} == {id(x) for x in heads}
    values = [x.clone() for x in trained]
    optimizer = torch.optim.SGD(trained, 0.1)
    verdicts, vertical = judge(pictures(2), positions(2))
    (sum(x.square().mean() for x in verdicts) + vertical.square().mean()).backward()
    optimizer.step()
    assert all(torch.equal(x, before[name]) for name, x in frozen)
    assert all(not torch.equal(x, old) for x, old in zip(trained, values, strict=True))


def test_the_projected_judge_passes_gradients_to_the_pictures(projected):
    x = pictures(2).requires_grad_()
    verdicts, _ = projected(x, positions(2))
    sum(verdict.mean() for verdict in verdicts).backward()
    assert (x.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_projected_verdicts_on_a_picture_do_not_depend_on_the_rest_of_the_batch(projected):
    judge = copy.deepcopy(projected).eval()
    x = pictures(3)
    verdicts, vertical = judge(x, positions(3))
    alone, vertical_alone = judge(x[1:2], positions(3)[1:2])
    assert all(torch.allclose(a[1:2], b, atol=1e-4) for a, b in zip(verdicts, alone, strict=True))
    assert torch.allclose(vertical[1:2], vertical_alone, atol=1e-4)


def test_every_scale_is_judged(projected):
    """A change of the coarsest features reaches the finest map: mixing goes top-down."""
    judge = copy.deepcopy(projected).eval()
    features = [x.detach() for x in judge.features(pictures(1))]
    before = judge.projection(features)
    after = judge.projection([*features[:3], features[3] + 1])
    assert all((a - b).abs().max() > 1e-5 for a, b in zip(before, after, strict=True))
    after = judge.projection([features[0] + 1, *features[1:]])
    assert all(torch.equal(a, b) for a, b in zip(before[1:], after[1:], strict=True))


def test_a_hatching_of_the_finest_grain_is_judged(projected):
    """A checkerboard of two levels of 255 almost disappears when the picture is enlarged for the features."""
    judge = copy.deepcopy(projected).eval()
    x = torch.zeros(1, 3, 101, 101)
    rows = torch.arange(101)
    hatched = x + ((rows[:, None] + rows[None]) % 2 * 2 - 1) * 2 / 255
    before, after = (judge(y, positions(1))[0][-1] for y in (x, hatched))
    assert (before - after).abs().max() > 1e-4


def test_pictures_are_enlarged_in_half_of_the_calls_and_a_constant_stays_constant():
    random = torch.Generator().manual_seed(0)
    x = torch.full((1, 3, 101, 101), 0.3)
    results = [enlarge_at_random(x, random) for _ in range(200)]
    sides = [y.shape[3] for y in results]
    assert set(sides) == {101, 128}
    assert 70 < sides.count(128) < 130
    assert all(torch.allclose(y, torch.tensor(0.3)) for y in results)
