"""Processes that train together have the same networks and draw different samples."""

import dataclasses
import threading

import pytest
import torch

from model.config import DETAIL_RECIPE, PRESETS, RECIPES
from model.errors import InputError
from model.training.detail import DetailTrainer
from model.training.processes import Processes, choose_kernels, launch
from model.training.trainer import Trainer, step_generator
from tests.model.training.test_detail import SMALL_STAGE

RECIPE = dataclasses.replace(RECIPES["paper"], batch=4, path_every=2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thread(Processes):
    """Stands for a process in one of two threads, so that both can be looked into."""

    barrier: threading.Barrier
    given: tuple[list, list]
    count: int = 2

    def mean(self, values):
        mine, other = self.given[self.rank], self.given[1 - self.rank]
        mine.append(values)
        self.barrier.wait()
        mean = (values + other[len(mine) - 1]) / 2
        self.barrier.wait()
        return mean


def both():
    """Returns two processes."""
    barrier, given = threading.Barrier(2, timeout=60), ([], [])
    return [Thread(rank=rank, barrier=barrier, given=given) for rank in (0, 1)]


def generators(processes):
    def step(trainer, random):
        pictures, t = torch.rand(2, 3, 101, 101, generator=random) * 2 - 1, torch.rand(2, generator=random)
        return trainer.parts(pictures, t)[0].windows.z_g, trainer.step(pictures, t)

    return [Trainer(PRESETS["tiny"], RECIPE, each) for each in processes], step


def details(processes):
    recipe = dataclasses.replace(DETAIL_RECIPE, batch=4, patch_px=128, adversarial_after=0)

    def step(trainer, random):
        drawn = trainer.draw_worlds(2, step_generator(recipe.seed, trainer.steps, trainer.processes.rank))
        return drawn, trainer.step(torch.rand(2, 3, 128, 128, generator=random) * 2 - 1)

    return [DetailTrainer(PRESETS["tiny"], SMALL_STAGE, recipe, each) for each in processes], step


@pytest.mark.parametrize("build", [generators, details])
def test_after_each_step_all_processes_hold_the_same_networks_and_losses(build):
    trainers, step = build(both())
    assert [trainer.share for trainer in trainers] == [2, 2]
    losses, drawn = ([], []), ([], [])

    def run(rank):
        random = torch.Generator().manual_seed(rank)
        for _ in range(2):
            seen, values = step(trainers[rank], random)
            drawn[rank].append(seen)
            losses[rank].append(values)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(losses[0]) == 2
    assert losses[0] == losses[1]
    assert not torch.equal(drawn[0][0], drawn[1][0])
    states = [trainer.state() for trainer in trainers]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(x, states[1][name]) for name, x in states[0].items())
    assert trainers[0].images == 8


@pytest.mark.parametrize(("batch", "accumulate"), [(5, 1), (6, 2)])
def test_a_batch_that_cannot_be_shared_out_evenly_is_refused(batch, accumulate):
    recipe = dataclasses.replace(RECIPE, batch=batch, accumulate=accumulate)
    with pytest.raises(InputError, match=f"a batch of {batch} cannot be split evenly over 2 processes of {accumulate}"):
        Trainer(PRESETS["tiny"], recipe, both()[0])


def test_without_torchrun_there_is_one_process():
    assert launch() == Processes(torch.device("cpu"), 0, 1)


def test_kernels_are_chosen_as_asked_for(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    try:
        choose_kernels("float32", deterministic=True)
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.are_deterministic_algorithms_enabled()
        choose_kernels("bf16", deterministic=False)
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cuda.matmul.allow_tf32 = False
