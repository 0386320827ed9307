"""Sentences and table rows on crossover lengths and on money saved."""

from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.returns import CostAndReturn, Crossover, Pair, Timed, WorkloadCost
from layerwright.tasks.report.formats import count, duration, length, number, percent
from layerwright.tasks.returns.money import crossovers

TIMED: dict[Timed, str] = {"prefill": "Prefill", "decode": "Decoding", "request": "A whole request"}


def crossover_sentences(evaluation: EvalReport) -> list[str]:
    """One sentence for prefill, decoding and whole requests, at each batch size."""
    return [_crossover(crossover) for crossover in crossovers(evaluation.measurements)]


def _crossover(crossover: Crossover) -> str:
    what = TIMED[crossover.timed]
    if crossover.new_tokens:
        what += f" with {crossover.new_tokens} new tokens"
    if crossover.batch > 1:
        what += f" at batch {crossover.batch}"
    ratios = ", ".join(f"{length(n)}: {ratio:.2f}" for n, ratio in crossover.measured)
    measured = f"(the candidate's time over the base's at {ratios})"
    if crossover.tokens is None:
        return f"{what} is not faster at the longest measured prompt {measured}."
    if crossover.from_the_shortest:
        return (
            f"{what} is faster at every measured length, from "
            f"{length(crossover.measured[0][0])} tokens {measured}."
        )
    return (
        f"{what} is faster from about {rounded(crossover.tokens):,} tokens, interpolated between "
        f"the measured lengths {measured}."
    )


def rounded(tokens: float) -> int:
    """Two significant digits, because an interpolation is not more accurate."""
    return int(float(f"{tokens:.2g}"))


def lead(cost: CostAndReturn) -> WorkloadCost | None:
    """The workload for the summary: the longest prompt, at the batch where the base is cheapest."""
    order = sorted(cost.workloads, key=lambda load: (-load.prompt_tokens, load.request.base))
    return order[0] if order else None


def return_sentence(cost: CostAndReturn) -> str:
    """The cost of the conversion, and after how many tokens it pays back."""
    currency = cost.price.currency
    spent = (
        f"The conversion took {duration(sum(cost.device_seconds.values()))} of device time, "
        f"which costs {money(cost.conversion, currency)}"
    )
    load = lead(cost)
    if load is None:
        return (
            f"{spent}. The cost per token is unknown, because no whole request was timed for both "
            "base and candidate."
        )
    price = f"at {money(cost.price.device_hour, currency)} per device hour ({cost.device})"
    saving = f"For {_requests(load)}, {_per_million(load.request, currency)}, {price}. "
    if load.break_even_tokens is None:
        return f"{saving}{spent}. It saves nothing, so it never pays back."
    requests = load.break_even_tokens / (load.prompt_tokens + load.new_tokens)
    return (
        f"{saving}{spent}. It pays back after {token_count(load.break_even_tokens)} tokens, about "
        f"{count(max(1, round(requests)))} such requests."
    )


def money_saved(cost: CostAndReturn) -> str:
    """The same as part of a sentence; empty if no whole request was timed."""
    load = lead(cost)
    if load is None:
        return ""
    each = _per_million(load.request, cost.price.currency)
    saving = f"at {length(load.prompt_tokens)} tokens {each}"
    if load.break_even_tokens is None:
        return saving
    tokens = token_count(load.break_even_tokens)
    return f"{saving}, and the conversion pays back after {tokens} tokens"


def _per_million(pair: Pair, currency: str) -> str:
    change = percent(pair.candidate / pair.base - 1, signed=True)
    return (
        f"a million tokens cost {money(pair.candidate, currency)} instead of "
        f"{money(pair.base, currency)} ({change})"
    )


def _requests(load: WorkloadCost) -> str:
    batch = f" at batch {load.batch}" if load.batch > 1 else ""
    prompt = f"requests with {length(load.prompt_tokens)} prompt tokens"
    return f"{prompt} and {load.new_tokens:,} new tokens{batch}"


def token_count(tokens: float) -> str:
    """A number of tokens, at least 1: ``1.5 M``."""
    return count(max(1, round(tokens)))


def money(amount: float, currency: str) -> str:
    """``0.39 USD``: two decimals, and more for amounts below 0.1."""
    return f"{amount:,.2f} {currency}" if abs(amount) >= 0.1 else f"{number(amount)} {currency}"
