"""The blocks and the texts that each flow requires of its recipe."""

from __future__ import annotations

from layerwright.tasks.evaluate.suite import needed_texts as texts_of
from layerwright.tasks.recipe.recipe import Recipe

NEEDED_BLOCKS = {
    "convert": ("choose", "evaluate", "gate", "registry"),
    "survey": ("survey",),
    "requalify": ("evaluate", "gate", "registry"),
    "compare": ("evaluate", "gate"),
}


def texts_of_flow(recipe: Recipe, flow: str) -> tuple[str, ...]:
    """Every text that a flow reads; the recipe may define more."""
    if flow == "survey":
        return surveyed_texts(recipe)
    return needed_texts(recipe) if flow == "convert" else evaluated_texts(recipe)


def evaluated_texts(recipe: Recipe) -> tuple[str, ...]:
    return texts_of(recipe.evaluate.metrics) if recipe.evaluate else ()


def needed_texts(recipe: Recipe) -> tuple[str, ...]:
    """Every text that converting needs; the recipe may define more."""
    trained = trained_texts(recipe)
    return tuple(dict.fromkeys((*measured_texts(recipe), *trained, *evaluated_texts(recipe))))


def trained_texts(recipe: Recipe) -> tuple[str, ...]:
    """The texts for training, and those for its validation."""
    names: list[str] = []
    for options in (recipe.regularize, recipe.finetune):
        if options:
            names += [options.text, *([options.validation.text] if options.validation else [])]
    return tuple(names)


def surveyed_texts(recipe: Recipe) -> tuple[str, ...]:
    """Every text that the survey reads."""
    options = recipe.survey
    assert options is not None  # a survey needs the block
    names = (*measured_texts(recipe), *texts_of(options.metrics))
    if options.stability:
        names += (options.stability.text, *options.stability.held_out)
    return tuple(dict.fromkeys(names))


def measured_texts(recipe: Recipe) -> tuple[str, ...]:
    """The texts that layers are profiled and fitted on."""
    return (recipe.profile.text, *((recipe.convert.text,) if recipe.convert else ()))
