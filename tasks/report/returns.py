"""From which length on the candidate is faster, and what it saves in money, in words."""

from __future__ import annotations

from dataclasses import dataclass

from layerwright.tasks.contracts.crossover import Crossover, Pair, Timed
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.returns import CostAndReturn, WorkloadCost
from layerwright.tasks.report.formats import count, duration, length, number, percent
from layerwright.tasks.returns.crossover import crossovers

DOES: dict[Timed, str] = {
    "prefill": "Reading a prompt",
    "decode": "Writing behind a prompt",
    "request": "A whole request",
}


def crossover_sentences(evaluation: EvalReport) -> list[str]:
    """One sentence for reading, writing and whole requests, at each batch size."""
    return [_crossover(one) for one in crossovers(evaluation.measurements)]


def _crossover(one: Crossover) -> str:
    what = DOES[one.timed]
    if one.new_tokens:
        what += f" with {one.new_tokens} new tokens"
    if one.batch > 1:
        what += f", {one.batch} rows at once,"
    shown = ", ".join(f"{length(n)}: {ratio:.2f}" for n, ratio in one.measured)
    measured = f"(the candidate's time over the base's at {shown})"
    if one.tokens is None:
        return f"{what} is not faster at the longest prompt that was measured {measured}."
    if one.from_the_shortest:
        return (
            f"{what} is faster at every length that was measured, from "
            f"{length(one.measured[0][0])} tokens on {measured}."
        )
    return (
        f"{what} is faster from about {rounded(one.tokens):,} tokens on, read off the line "
        f"between the measured lengths {measured}."
    )


def rounded(tokens: float) -> int:
    """Two significant digits: more would not be true of a line between two measurements."""
    return int(float(f"{tokens:.2g}"))


def lead(cost: CostAndReturn) -> WorkloadCost | None:
    """The workload to speak of: the longest prompt, at the batch where the base is cheapest."""
    return min(cost.workloads, key=lambda one: (-one.prompt_tokens, one.request.base), default=None)


def return_sentence(cost: CostAndReturn) -> str:
    """What the conversion cost and when it is paid back, for whoever pays."""
    currency = cost.price.currency
    spent = (
        f"The conversion took {duration(sum(cost.device_seconds.values()))} of device time, "
        f"{money(cost.conversion, currency)}"
    )
    one = lead(cost)
    if one is None:
        return f"{spent}. What a token costs is not known: no whole request was timed in both arms."
    price = f"at {money(cost.price.device_hour, currency)} an hour for a device ({cost.device})"
    told = f"For {_requests(one)}, {_per_million(one.request, currency)}, {price}. "
    if one.break_even_tokens is None:
        return f"{told}{spent}; without a saving it is never paid back."
    requests = one.break_even_tokens / (one.prompt_tokens + one.new_tokens)
    return (
        f"{told}{spent}; it has paid for itself after {_tokens(one.break_even_tokens)} tokens, "
        f"about {count(max(1, round(requests)))} such requests."
    )


def money_saved(cost: CostAndReturn) -> str:
    """The same in half a sentence; empty where nothing was timed."""
    one = lead(cost)
    if one is None:
        return ""
    told = f"at {length(one.prompt_tokens)} {_per_million(one.request, cost.price.currency)}"
    if one.break_even_tokens is None:
        return told
    return f"{told}, and the conversion is paid back after {_tokens(one.break_even_tokens)} tokens"


def _per_million(pair: Pair, currency: str) -> str:
    change = percent(pair.candidate / pair.base - 1, signed=True)
    return (
        f"a million tokens cost {money(pair.candidate, currency)} instead of "
        f"{money(pair.base, currency)} ({change})"
    )


def _requests(one: WorkloadCost) -> str:
    rows = f", {one.batch} at once" if one.batch > 1 else ""
    return f"requests of {length(one.prompt_tokens)} tokens with {one.new_tokens:,} new ones{rows}"


def _tokens(tokens: float) -> str:
    return count(max(1, round(tokens)))


def money(amount: float, currency: str) -> str:
    """``0.39 USD``: two decimals, more where less would be nothing."""
    return f"{amount:,.2f} {currency}" if abs(amount) >= 0.1 else f"{number(amount)} {currency}"


@dataclass(frozen=True)
class WorkloadRow:
    """Money of one workload: for prompts, answers and whole requests (base, candidate, saved)."""

    name: str
    money: list[tuple[str, str, str, str]]
    break_even: str


def workload_rows(cost: CostAndReturn) -> list[WorkloadRow]:
    return [
        WorkloadRow(
            name=f"{one.prompt_tokens:,} + {one.new_tokens:,}"
            + (f", {one.batch} rows" if one.batch > 1 else ""),
            money=[
                (
                    what,
                    number(pair.base),
                    number(pair.candidate),
                    percent(pair.saving / pair.base, signed=True),
                )
                for what, pair in (
                    ("of prompts", one.prefill),
                    ("of answers", one.decode),
                    ("of both", one.request),
                )
            ],
            break_even="never"
            if one.break_even_tokens is None
            else f"{_tokens(one.break_even_tokens)} tokens",
        )
        for one in cost.workloads
    ]
