"""The texts and the model that each flow reads: pin them, and check them before a run starts."""

import shutil
from concurrent.futures import ThreadPoolExecutor

from layerwright.flows.session.preflight import located
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.suite import needed_texts
from layerwright.tasks.fetch.sources import Source, model_source, text_source
from layerwright.tasks.home import Home
from layerwright.tasks.recipe.document import Located
from layerwright.tasks.recipe.recipe import Recipe

WORKING_ROOM = 3  # copies of the model on disk at once: base, converted, tuned


def texts_of_flow(recipe: Recipe, flow: str) -> tuple[str, ...]:
    """Every text that a flow reads, once; the recipe may define more."""
    names = evaluated_texts(recipe)
    if flow == "convert":
        names = (*measured_texts(recipe), *trained_texts(recipe), *names)
    elif flow == "survey":
        assert recipe.survey is not None  # a survey needs the block
        names = (*measured_texts(recipe), *needed_texts(recipe.survey.metrics))
        if stability := recipe.survey.stability:
            names += (stability.text, *stability.held_out)
    return tuple(dict.fromkeys(names))


def evaluated_texts(recipe: Recipe) -> tuple[str, ...]:
    return needed_texts(recipe.evaluate.metrics) if recipe.evaluate else ()


def measured_texts(recipe: Recipe) -> tuple[str, ...]:
    """The texts that layers are profiled and fitted on."""
    return (recipe.profile.text, *((recipe.convert.text,) if recipe.convert else ()))


def trained_texts(recipe: Recipe) -> tuple[str, ...]:
    """The texts for training, and those for its validation."""
    trainings = (recipe.regularize, recipe.finetune)
    return tuple(block.text for t in trainings if t for block in (t, t.validation) if block)


def sources_of(recipe: Recipe, document: Located, *, flow: str) -> dict[str, Source]:
    """Every source that a flow will read: ``model`` and ``data.<name>``; InputError if no kind of
    source matches; the error names file and line.
    """
    found: dict[str, Source] = {}
    with located(document, "model.source"):
        found["model"] = model_source(recipe.model, recipe.data_root)
    for name in texts_of_flow(recipe, flow):
        with located(document, f"data.{name}.source"):
            found[f"data.{name}"] = text_source(recipe.data[name], recipe.data_root)
    return found


def pin_sources(sources: dict[str, Source], document: Located) -> dict[str, str]:
    """The identity of each source, for the cache keys; InputError if a source does not exist."""
    pins = {}
    for where, source in sources.items():
        with located(document, f"{where}.source"):
            pins[where] = source.identity()
    return pins


def check_sources(sources: dict[str, Source], document: Located, home: Home) -> None:
    """Ask each source whether it exists and how large it is; check the disk. InputError if a source
    does not exist, or the disk has too little space.
    """
    sizes = {}
    with ThreadPoolExecutor() as pool:  # each probe waits for an index
        probes = {where: pool.submit(source.size_bytes) for where, source in sources.items()}
    for where, probe in probes.items():
        with located(document, f"{where}.source"):
            sizes[where] = probe.result() or 0
    # a quantised source grows up to eight times when its tensors are widened
    check_disk(home, sum(sizes.values()) + WORKING_ROOM * 8 * sizes.get("model", 0))


def check_disk(home: Home, needed: int) -> None:
    """Raise InputError if the disk under ``home`` has fewer than ``needed`` bytes free."""
    existing = next(p for p in (home.root, *home.root.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"not enough disk under {home}: {free / 1e9:.1f} GB free",
            expected=f"{needed / 1e9:.1f} GB for sources, base and converted checkpoints",
            remedy="free some space, or give another folder with --home",
        )
