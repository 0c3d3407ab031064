"""Presets and recipes: the paper's numbers, and invalid values that are refused in one line."""

import dataclasses
import json

import pytest

from model.config import PRESETS, RECIPES, default_recipe, generator_config, recipe_for, training_config
from model.errors import InputError


@pytest.mark.parametrize(
    ("preset", "patch_px", "full_px", "cell_px"),
    [
        ("paper", 101, 197, 16),
        ("paper-197", 197, 389, 32),
        ("paper-389", 389, 773, 64),
        ("stylegan2-nci", 96, 197, 16),
        ("stylegan2-nci-fcg", 101, 197, 16),
    ],
)
def test_a_preset_names_its_patch_and_its_full_size(preset, patch_px, full_px, cell_px):
    config = PRESETS[preset]
    assert (config.patch_px, config.full_px, config.cell_px) == (patch_px, full_px, cell_px)


def test_the_ablations_render_in_one_shot_only():
    assert {name for name, config in PRESETS.items() if not config.tileable} == {
        "stylegan2-nci",
        "stylegan2-nci-fcg",
        "small-nci",
        "small-nci-fcg",
    }


def test_the_papers_recipe_is_the_papers():
    """The numbers are those of Section 3.4 and Appendix C."""
    paper = RECIPES["paper"]
    assert (paper.vertical_weight, paper.diversity_weight) == (1, 1)
    assert (paper.r1_weight, paper.r1_every, paper.path_weight, paper.path_every) == (10, 16, 2, 4)
    assert (paper.batch, paper.beta2, paper.style_mixing, paper.iterations) == (16, 0.99, 0.9, 800_000)
    assert {default_recipe(name) for name in PRESETS if name.startswith(("paper", "stylegan2"))} == {"paper"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_without_coordinates_there_is_no_vertical_and_no_diversity_loss(recipe):
    settings = recipe_for(PRESETS["small-nci"], recipe)
    assert (settings.vertical_weight, settings.diversity_weight, settings.beyond_share) == (0, 0, 0)
    assert recipe_for(PRESETS["small"], recipe) == RECIPES[recipe]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_network_is_read_back_from_json(preset):
    assert generator_config(json.loads(json.dumps(dataclasses.asdict(PRESETS[preset])))) == PRESETS[preset]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_read_back_from_json_also_of_an_earlier_version(recipe):
    values = json.loads(json.dumps(dataclasses.asdict(RECIPES[recipe])))
    assert training_config(values) == RECIPES[recipe]
    for name in ("path_weight", "path_every", "style_mixing", "iterations", "accumulate", "precision"):
        del values[name]
    assert training_config(values).path_weight == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "stylegan"}, "generator kind is 'stylegan'; choose infinitygan or nci or nci-fcg"),
        ({"vertical_law": 3}, "generator vertical_law is 3; choose crop or paper"),
        ({"kind": "nci", "z_l_dim": 9}, "structure_channels is 8; without G_S use z_l_dim"),
        ({"charm": 1}, "charm"),
    ],
)
def test_a_network_that_cannot_be_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        generator_config({**dataclasses.asdict(PRESETS["tiny"]), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accumulate": 3}, "accumulate is 3; it must divide the batch, 16"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"precision": "float64"}, "precision is 'float64'; choose float32 or tf32 or bf16"),
        ({"charm": 1}, "charm"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        training_config({**dataclasses.asdict(RECIPES["paper"]), **change})
