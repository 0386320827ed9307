"""The choose step: build the problem, load the base if the selector needs trials, and plan."""

from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

from layerwright.tasks.choose.base import TrialOptions
from layerwright.tasks.choose.plan import choose_plan, problem_of
from layerwright.tasks.choose.trial import Trial
from layerwright.tasks.context import Context
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.contracts.references import Calibration, ModelRef
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.loading import base_config, load_tokenizer
from layerwright.tasks.offload.offload import StreamedModel, load_streamed
from layerwright.tasks.passes.batches import calibration_rows, rows_beside
from layerwright.tasks.passes.states import Keep
from layerwright.tasks.probes.recall import probe_prompts
from layerwright.tasks.probes.yardstick import Yardstick
from layerwright.tasks.recipe.choose import ChooseOptions


def choose_on_model(
    model: ModelRef,
    profile: ModelProfile,
    measured_on: Calibration,
    fitted_on: Calibration,
    options: ChooseOptions,
    costs: CostTable | None,
    ctx: Context,
) -> ConversionPlan:
    """The plan of the recipe's selector.

    Args:
        measured_on: the profile's calibration rows; trials measure plans on the first of them.
        fitted_on: rows that strategies are fitted on; trials exclude the rows they measure on.

    InputError as for `choose_plan`, or if the trial needs more rows than the profile has.
    """
    folder = ctx.store.open_tree(model.sha256)
    selector = options.selector
    problem = problem_of(profile, options, base_config(folder), ctx.seed, costs)
    if selector.tries is None:
        return choose_plan(problem, selector)
    with ExitStack() as stack:

        @cache
        def base() -> StreamedModel:
            streamed = load_streamed(folder, ctx.device, resident_bytes=ctx.memory_bytes)
            return stack.enter_context(streamed)

        # the answers of recall prompts must lie outside the reach of the widest strategy
        forms = {option.strategy for c in problem.candidates for option in c.layers}
        reach = max(strategy.reach_tokens() or 0 for strategy in forms)
        tried_on = measured_on.model_copy(update={"rows": selector.tries.rows})
        rows = partial(rows_beside, fitted_on, tried_on, ctx.store, folder)
        make = partial(_yardstick, measured_on, selector.tries, reach, ctx, folder)
        trial = Trial(
            lambda: base().model,
            lambda model: make(model, base().keep_states(ctx.workdir / "states")),
            rows,
            ctx.workdir / "trials",
            ctx.log,
        )
        return choose_plan(problem.model_copy(update={"trial": trial}), selector)


def _yardstick(
    rows: Calibration,
    options: TrialOptions,
    keep_out_tokens: int,
    ctx: Context,
    folder: Path,
    base: HybridForCausalLM,
    keep: Keep,
) -> Yardstick:
    all_rows = calibration_rows(rows, ctx.store, folder)
    tokens = options.row_tokens or rows.row_tokens
    if options.rows > rows.rows or tokens > rows.row_tokens:
        raise InputError(
            f"the selector measures plans on {options.rows} rows of {tokens} tokens",
            where="choose.selector",
            expected=f"at most the profile's {rows.rows} rows of {rows.row_tokens} tokens",
        )
    probes, sizes = {}, (options.prompts, options.prompt_tokens, ctx.seed)
    if options.prompts:
        tokenizer = load_tokenizer(folder)
        probes = probe_prompts(options.probes, tokenizer, *sizes, keep_out_tokens=keep_out_tokens)
    return Yardstick(base, all_rows[: options.rows, :tokens], probes, keep)
