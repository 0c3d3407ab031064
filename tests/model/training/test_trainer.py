import dataclasses

import pytest
import torch
from torch.nn import functional

from model import checkpoint
from model.config import PRESETS, RECIPES, ablation, recipe_for
from model.errors import InputError
from model.training.trainer import DivergenceError, Trainer, step_generator

TINY = PRESETS["tiny"]
BATCH = 4
RECIPE = {
    "paper": dataclasses.replace(RECIPES["paper"], batch=BATCH, r1_every=2, path_every=2, ema_images=(60, 60)),
    "projected": dataclasses.replace(RECIPES["projected"], batch=BATCH),
}


def landscape():
    """Returns a synthetic photograph [3,197,197] in [-1, 1]: a sky, paler towards the horizon, over striped land."""
    y, x = torch.meshgrid(torch.arange(197.0), torch.arange(197.0), indexing="ij")
    hills = 98 + 8 * torch.sin(x / 23)
    sky = torch.stack([-0.9 + y / 400, -0.6 + y / 300, 0.3 + y / 300])
    land = torch.stack([-0.4 + 0.15 * torch.sin(y / 4), -0.5 + 0.1 * torch.sin(x / 9), -0.9 + 0 * y])
    return torch.where(y < hills, sky, land)


def crops(t, random):
    """Crops patches of the photograph by the vertical law."""
    photograph = landscape()
    left = torch.randint(0, 97, (len(t),), generator=random)
    tops = (48 * (t + 1)).round().int()
    return torch.stack([photograph[:, a : a + 101, b : b + 101] for a, b in zip(tops, left, strict=True)])


def photographs(step, batch=BATCH):
    random = torch.Generator().manual_seed(1000 + step)
    t = torch.rand(batch, generator=random) * 2 - 1
    return crops(t, random), t


def frames(step, batch=BATCH):
    """Returns whole photographs, each shifted by a random number of pixels."""
    random = torch.Generator().manual_seed(2000 + step)
    left = torch.randint(0, 197, (batch,), generator=random)
    return torch.stack([landscape().roll(int(x), dims=2) for x in left]), torch.zeros(batch)


def train(trainer, steps):
    return [trainer.step(*(frames if trainer.critic.sees_frames else photographs)(trainer.steps)) for _ in range(steps)]


def stored(trainer):
    """Returns a training state's file."""
    header = {"steps": trainer.steps, "images_before": trainer.images_before}
    return checkpoint.save(checkpoint.TRAINING_STATE, trainer.state(), header)


def resumed(content, config, network=TINY):
    header, tensors = checkpoint.load(checkpoint.TRAINING_STATE, content, "state")
    trainer = Trainer(network, config)
    trainer.load_state(tensors, header["steps"], header["images_before"])
    return trainer


@pytest.mark.parametrize("recipe", RECIPE)
def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not_bit_for_bit(recipe):
    steps = {"paper": 3, "projected": 2}[recipe]
    whole = Trainer(TINY, RECIPE[recipe])
    losses = train(whole, 2 * steps)
    first = Trainer(TINY, RECIPE[recipe])
    losses_in_parts = train(first, steps)
    content = stored(first)
    del first
    torch.manual_seed(77)
    torch.randn(1000)
    second = resumed(content, RECIPE[recipe])
    losses_in_parts += train(second, steps)
    assert losses_in_parts == losses
    assert second.images == whole.images == 2 * steps * BATCH
    assert stored(second) == stored(whole)


@pytest.mark.parametrize("recipe", RECIPE)
def test_so_does_a_run_that_judges_whole_frames(recipe):
    settings = dataclasses.replace(RECIPE[recipe], frame_every=2)
    whole, first = Trainer(TINY, settings), Trainer(TINY, settings)
    losses = train(whole, 3)
    losses_in_parts = train(first, 1)
    second = resumed(stored(first), settings)
    assert losses_in_parts + train(second, 2) == losses
    assert stored(second) == stored(whole)
    assert [any(name.startswith("frame_") for name in entry) for entry in losses] == [False, True, False]


def test_a_step_on_frames_changes_their_discriminator_and_no_other():
    trainer = Trainer(TINY, dataclasses.replace(RECIPE["paper"], frame_every=2))
    train(trainer, 1)
    before = {name: x.clone() for name, x in trainer.state().items()}
    train(trainer, 1)
    changed = {name.split(".")[0] for name, x in trainer.state().items() if not torch.equal(x, before.get(name, x + 1))}
    assert changed >= {"generator", "frame_discriminator", "frame_optimizer", "g_optimizer"}
    assert not changed & {"discriminator", "d_optimizer"}


def test_a_state_without_frames_starts_their_discriminator_as_that_of_patches():
    plain = Trainer(TINY, RECIPE["paper"])
    train(plain, 1)
    trainer = resumed(stored(plain), dataclasses.replace(RECIPE["paper"], frame_every=2))
    known, taken = plain.discriminator.state_dict(), trainer.frame_critic.discriminator.state_dict()
    assert all(torch.equal(x, taken[name]) for name, x in known.items())


def test_a_generated_frame_is_as_high_as_a_photograph_and_centred_on_the_horizon():
    """The middle of the frame is the patch at t = 0 of the same world, at the same column."""
    trainer = Trainer(TINY, RECIPE["paper"])
    with torch.no_grad():
        frame = trainer.draw(2, step_generator(0, 0), frames=True)
        picture = trainer.generate(frame)[0]
        cells = TINY.frame_cells
        assert picture.shape == (2, 3, 197, 197)
        assert cells == 17
        assert torch.equal(frame.coordinates[:, 0], -frame.coordinates[:, 0].flip(1))
        inner = slice(3, 3 + TINY.latent_cells)
        noise = [x[:, :, n : x.shape[2] - n, n : x.shape[3] - n] for x, n in zip(frame.z_n, MARGINS, strict=True)]
        patch = dataclasses.replace(
            frame, z_l=frame.z_l[:, :, inner, inner], coordinates=frame.coordinates[:, :, inner, inner], z_n=noise
        )
        assert (trainer.generate(patch)[0] - picture[:, :, 48:149, 48:149]).abs().max() < 1e-5


MARGINS = [3 * 2 ** (1 + layer // 2) for layer in range(2 * TINY.pairs)]
"""The number of values by which each layer's noise is wider in a frame of 17 cells than in a patch of 11, per side."""


def test_windows_beyond_the_frame_begin_with_the_same_image_in_both_streams():
    """They come after as many patches of photographs as the generator draws within the frame."""
    trainer = Trainer(TINY, dataclasses.replace(RECIPE["projected"], frame_every=3, beyond_after=10 * BATCH))
    patches = sum((step + 1) % 3 != 0 for step in range(10)) * BATCH
    assert trainer.patches_within_frame == patches


def test_a_state_that_is_read_and_stored_again_is_the_same_file():
    trainer = Trainer(TINY, RECIPE["paper"])
    train(trainer, 1)
    assert stored(resumed(stored(trainer), RECIPE["paper"])) == stored(trainer)


def test_a_run_may_be_resumed_before_its_first_step():
    trainer = resumed(stored(Trainer(TINY, RECIPE["paper"])), RECIPE["paper"])
    whole = Trainer(TINY, RECIPE["paper"])
    assert train(trainer, 1) == train(whole, 1)


def test_one_seed_gives_one_run_and_another_seed_another():
    runs = []
    for seed in (5, 5, 6):
        trainer = Trainer(TINY, dataclasses.replace(RECIPE["paper"], seed=seed))
        runs.append((train(trainer, 2), stored(trainer)))
        torch.randn(10)
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]


def test_each_step_has_its_own_randomness():
    draws = [torch.rand(3, generator=step_generator(seed, step)) for seed in (0, 1, 2**62) for step in (0, 1, 10**6)]
    assert len({tuple(x.tolist()) for x in draws}) == 9
    assert torch.equal(draws[1], torch.rand(3, generator=step_generator(0, 1)))


def test_each_step_sees_windows_of_its_own_which_are_those_of_any_run_of_the_seed(monkeypatch):
    seen = []
    for _ in range(2):
        trainer = Trainer(TINY, RECIPE["paper"])
        draw = trainer.draw
        monkeypatch.setattr(trainer, "draw", lambda *given, draw=draw: seen.append(draw(*given)) or seen[-1])
        train(trainer, 2)
    first, second, first_again, second_again = seen
    for name in ("z_l", "z_g", "coordinates", "t"):
        assert not torch.equal(getattr(first, name), getattr(second, name))
        assert torch.equal(getattr(first, name), getattr(first_again, name))
        assert torch.equal(getattr(second, name), getattr(second_again, name))


@pytest.mark.parametrize(("recipe", "names"), [("paper", {"r1", "path", "path_length"}), ("projected", set())])
def test_a_step_tells_its_losses_by_name(recipe, names):
    trainer = Trainer(TINY, RECIPE[recipe])
    common = {"discriminator", "generator", "vertical_real", "vertical_fake", "diversity"}
    (losses,) = train(trainer, 1)
    assert losses.keys() == common | names
    assert trainer.images == BATCH


@pytest.mark.parametrize(("name", "every"), [("r1", "r1_every"), ("path", "path_every")])
def test_lazy_regularisers_are_applied_at_every_kth_step_only(name, every):
    trainer = Trainer(TINY, dataclasses.replace(RECIPE["paper"], **{every: 3}))
    assert [name in losses for losses in train(trainer, 4)] == [True, False, False, True]


def test_the_mean_path_length_follows_the_lengths_and_is_resumed():
    trainer = Trainer(TINY, dataclasses.replace(RECIPE["paper"], path_every=1))
    first, second = (losses["path_length"] for losses in train(trainer, 2))
    assert trainer.path_mean.item() == pytest.approx(0.01 * first * 0.99 + 0.01 * second)
    assert resumed(stored(trainer), RECIPE["paper"]).path_mean == trainer.path_mean
    older = {name: x for name, x in trainer.state().items() if name != "path_mean"}
    trainer.load_state(older, 2, 0)
    assert trainer.path_mean == 0


def test_a_share_of_the_pictures_takes_another_style_from_a_layer_on():
    trainer = Trainer(TINY, dataclasses.replace(RECIPE["paper"], style_mixing=0.9))
    windows = trainer.draw(400, step_generator(0, 0))
    ws = torch.stack(trainer.styles(windows), dim=1)  # [N,9,w_dim]
    own, other = (trainer.generator.mapping(z)[:, None] for z in (windows.z_g, windows.other_z_g))
    from_other = (ws == other).all(dim=2)
    assert torch.equal(from_other, ~(ws == own).all(dim=2))
    assert (from_other.int().diff(dim=1) >= 0).all()  # once changed, changed to the last layer
    assert not from_other[:, 0].any()
    first = (~from_other).sum(dim=1)
    assert (first == 9).float().mean() == pytest.approx(0.1, abs=0.05)
    assert set(first.tolist()) == set(range(1, 10))


@pytest.mark.parametrize("recipe", RECIPE)
@pytest.mark.parametrize("kind", ["nci", "nci-fcg"])
def test_an_ablation_that_was_stopped_and_resumed_equals_one_that_was_not(kind, recipe):
    """Its discriminator's vertical head has nothing to learn from, so no optimiser holds a state for it."""
    network = ablation(TINY, kind)
    settings = recipe_for(network, recipe)
    settings = dataclasses.replace(settings, batch=BATCH, r1_every=2, path_every=2)
    pictures = [(x[:, :, : network.patch_px, : network.patch_px], t) for x, t in map(photographs, range(2))]
    whole, first = Trainer(network, settings), Trainer(network, settings)
    for trainer, some in ((whole, pictures), (first, pictures[:1])):
        for batch in some:
            trainer.step(*batch)
    second = resumed(stored(first), settings, network)
    second.step(*pictures[1])
    assert stored(second) == stored(whole)


@pytest.mark.parametrize("kind", ["nci", "nci-fcg"])
def test_an_ablation_trains_without_positions_and_structure(kind):
    network = ablation(TINY, kind)
    recipe = dataclasses.replace(recipe_for(network, "paper"), batch=BATCH)
    trainer = Trainer(network, recipe)
    pictures, t = photographs(0)
    losses = trainer.step(pictures[..., : network.patch_px, : network.patch_px], t)
    assert losses.keys() == {"discriminator", "generator", "r1", "path", "path_length"}


@pytest.mark.parametrize(("recipe", "tolerance"), [("paper", 1e-4), ("projected", 1e-2)])
def test_a_batch_of_two_equal_parts_gives_the_step_of_one(recipe, tolerance, monkeypatch):
    """For spectral norms this holds only approximately, because each pass sharpens them."""
    monkeypatch.setattr(
        "model.training.trainer.step_generator", lambda seed, step, rank, part: step_generator(seed, step)
    )
    whole = Trainer(TINY, RECIPE[recipe])
    parts = Trainer(TINY, dataclasses.replace(RECIPE[recipe], batch=2 * BATCH, accumulate=2))
    pictures, t = photographs(0)
    expected = whole.step(pictures, t)
    assert parts.step(pictures.repeat(2, 1, 1, 1), t.repeat(2)) == pytest.approx(expected, rel=tolerance)
    for before, after in zip(whole.generator.parameters(), parts.generator.parameters(), strict=True):
        assert torch.allclose(before.grad, after.grad, rtol=100 * tolerance, atol=tolerance)


def test_the_parts_of_a_batch_have_their_own_randomness():
    trainer = Trainer(TINY, dataclasses.replace(RECIPE["paper"], accumulate=2))
    first, second = trainer.parts(*photographs(0))
    assert not torch.equal(first.windows.z_g, second.windows.z_g)


def test_reduced_precision_takes_regularisers_in_float32():
    """The first step's R1 is for the same network and photographs; its other losses agree to bfloat16's precision."""
    exact, reduced = (
        train(Trainer(TINY, dataclasses.replace(RECIPE["paper"], precision=precision)), 1)[0]
        for precision in ("float32", "bf16")
    )
    assert reduced["r1"] == exact["r1"]
    assert reduced["discriminator"] != exact["discriminator"]
    assert reduced == pytest.approx(exact, rel=0.1)


def test_a_step_changes_generator_and_discriminator_and_moves_the_average():
    trainer = Trainer(TINY, RECIPE["paper"])
    before = {name: x.clone() for name, x in trainer.state().items() if "optimizer" not in name}
    train(trainer, 2)
    after = trainer.state()
    assert {name for name, x in before.items() if torch.equal(x, after[name])} == set()


def test_the_averages_half_life_is_its_number_of_images():
    """While the generator does not change, each half-life halves the average's distance from it."""
    trainer = Trainer(TINY, dataclasses.replace(RECIPE["paper"], ema_images=(100, 100)))
    for parameter in trainer.ema.parameters():
        parameter.add_(1)
    for halves in (1, 2):
        for _ in range(100 // BATCH):
            trainer.average()
        distances = [a - b for a, b in zip(trainer.ema.parameters(), trainer.generator.parameters(), strict=True)]
        assert all(torch.allclose(x, torch.tensor(0.5**halves), atol=1e-4) for x in distances)


@pytest.mark.parametrize(("images", "half_life"), [(0, 500), (4_000, 500), (20_000, 2_000), (10**6, 5_000)])
def test_the_half_life_is_a_tenth_of_the_images_seen_within_its_bounds(images, half_life):
    trainer = Trainer(TINY, dataclasses.replace(RECIPE["paper"], ema_images=(500, 5_000)))
    trainer.images_before = images
    parameter = next(trainer.ema.parameters())
    target = next(trainer.generator.parameters())
    parameter.copy_(target + 1)
    trainer.average()
    assert (parameter - target).mean().item() == pytest.approx(0.5 ** (BATCH / half_life), abs=1e-5)


def test_the_discriminator_does_not_learn_from_the_generators_step():
    """The generator's step leaves no gradient in the discriminator, which can train afterwards."""
    trainer = Trainer(TINY, RECIPE["paper"])
    train(trainer, 1)
    seen = []
    backward = trainer.generator_backward

    def watched(part, parts):
        before = [parameter.grad.clone() for parameter in trainer.critic.parameters]
        losses = backward(part, parts)
        seen.extend(torch.equal(a, b.grad) for a, b in zip(before, trainer.critic.parameters, strict=True))
        return losses

    trainer.generator_backward = watched
    train(trainer, 1)
    assert seen
    assert all(seen)
    assert all(parameter.requires_grad for parameter in trainer.critic.parameters)


@pytest.mark.parametrize("where", ["photograph", "generator", "discriminator"])
def test_a_loss_that_is_no_number_raises_and_keeps_the_average(where):
    trainer = Trainer(TINY, RECIPE["paper"])
    pictures, t = photographs(0)
    if where == "photograph":
        pictures[0, 0, 0, 0] = torch.nan
    else:
        module = trainer.generator if where == "generator" else trainer.discriminator
        next(module.parameters()).data.view(-1)[0] = torch.nan
    before = [x.clone() for x in trainer.ema.parameters()]
    with pytest.raises(DivergenceError, match="image 0"):
        trainer.step(pictures, t)
    assert trainer.steps == 0
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.ema.parameters(), strict=True))


@pytest.mark.parametrize("reshaped", [False, True])
@pytest.mark.parametrize(
    "name", ["ema.mapping.layers.0.bias", "discriminator.last.weight", "g_optimizer.0.exp_avg_sq", "d_optimizer.3.step"]
)
def test_a_state_of_another_run_is_refused_in_one_line(name, reshaped):
    trainer = Trainer(TINY, RECIPE["paper"])
    train(trainer, 1)
    tensors = trainer.state()
    x = tensors.pop(name)
    if reshaped:
        tensors[name] = torch.stack([x, x])
    with pytest.raises(InputError) as caught:
        Trainer(TINY, RECIPE["paper"]).load_state(tensors, 1, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["trojan", "trojan.weight", "ema.trojan"])
def test_a_state_that_holds_more_than_a_state_has_is_refused(name):
    trainer = Trainer(TINY, RECIPE["paper"])
    with pytest.raises(InputError, match="trojan"):
        trainer.load_state({**trainer.state(), name: torch.zeros(3)}, 0, 0)


def test_the_average_can_be_stored_as_a_checkpoint():
    trainer = Trainer(TINY, RECIPE["paper"])
    content = checkpoint.save_checkpoint(trainer.ema.state_dict(), TINY, {"images": trainer.images}, "CC0-1.0")
    loaded = checkpoint.load_checkpoint(content, "file").generator
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), trainer.ema.parameters(), strict=True))


def layout(pictures):
    """Returns the mean colours of the cells of a 4×4 grid, averaged over pictures: [3,4,4]."""
    return functional.adaptive_avg_pool2d(pictures, 4).mean(dim=0)


def distance(trainer, windows):
    """Returns the distance in layout between the averaged generator's pictures and the photograph."""
    with torch.no_grad():
        fakes, _ = trainer.ema(windows.z_l, windows.coordinates, windows.z_g, windows.z_n)
    real = crops(windows.t, torch.Generator().manual_seed(0))
    return (layout(fakes.clamp(-1, 1)) - layout(real)).square().mean().sqrt().item()


@pytest.mark.slow
def test_training_on_one_photograph_brings_pictures_closer_to_it():
    """The discriminator does not compute the distance that is checked."""
    recipe = dataclasses.replace(RECIPE["paper"], generator_lr=2e-3, discriminator_lr=2e-3, path_every=30)
    trainer = Trainer(TINY, recipe)
    windows = trainer.draw(24, torch.Generator().manual_seed(99))
    before = distance(trainer, windows)
    train(trainer, 60)
    assert distance(trainer, windows) < 0.6 * before
