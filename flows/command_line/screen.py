"""What the commands show a person: tables on stdout."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, justify="left", overflow="fold")
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _figures(console: Console, title: str, metrics: dict[str, dict[str, float | None]]) -> None:
    """One metric a row, the arms side by side."""
    table = _table(title, "metric", *metrics)
    for name in dict.fromkeys(name for figures in metrics.values() for name in figures):
        table.add_row(name, *(_number(figures.get(name)) for figures in metrics.values()))
    console.print(table)


def summary(console: Console, value: dict[str, Any]) -> None:
    """A run's result: figures of every arm, what was decided, where the report lies."""
    _figures(console, f"Run {value['run_id']}", value["metrics"])
    counts: dict[str, int] = {}
    for strategy in value["plan"].values():
        counts[strategy] = counts.get(strategy, 0) + 1
    plan = ", ".join(f"{count} {strategy}" for strategy, count in counts.items())
    console.print(f"plan        {plan} of {len(value['plan'])} layers")
    spent = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in value["seconds"].items())
    console.print(f"time        {spent}")
    if value["cache_hits"]:
        console.print(f"cached      {', '.join(value['cache_hits'])}")
    if cost := value.get("cost"):  # runs made before there was one
        from layerwright.tasks.contracts.returns import CostAndReturn
        from layerwright.tasks.report.returns import return_sentence

        told = return_sentence(CostAndReturn.model_validate(cost))
        console.print(f"cost        {told}", soft_wrap=True)
    console.print(f"decision    [bold]{value['decision']}[/bold]")
    for check in value["failed_checks"]:
        console.print(f"  failed    {check}")
    if registered := value["registered"]:
        console.print(
            f"registered  {registered['name']} version {registered['version']} "
            f"as {registered['alias']}{' (found, verified)' if registered['found'] else ''}"
        )
    console.print(f"checkpoint  {value['checkpoint']['uri']}", soft_wrap=True)
    console.print(f"report      {value['report']}", soft_wrap=True)


def requalified(console: Console, value: dict[str, Any]) -> None:
    """A version measured again: figures of every arm, the decision, and what left its band."""
    _figures(console, f"{value['model']}, version {value['version']}", value["metrics"])
    console.print(f"decision    [bold]{value['decision']}[/bold]")
    for check in value["failed_checks"]:
        console.print(f"  failed    {check}", markup=False)
    for alarm in value["alarms"]:
        ratio = f"ratio to the {alarm['reference']} {_number(alarm['ratio'])}, "
        told = (ratio if alarm["ratio"] is not None else "") + alarm["reason"]
        console.print(f"  alarm     {alarm['metric']}: {told}", markup=False)
    console.print(f"trend       {len(value['trend'])} requalifications, this one included")
    console.print(f"report      {value['report']}", soft_wrap=True)


def compared(console: Console, value: dict[str, Any]) -> None:
    """Two checkpoints: every figure with the interval of its difference, and what changed."""
    columns = ("metric", "A", "B", "B - A", "95 % interval", "p", "items", "lost/won", "better")
    table = _table(f"A {value['a']}, B {value['b']}", *columns)
    for row in value["figures"]:
        bounds = "-" if row["low"] is None else f"{_number(row['low'])} to {_number(row['high'])}"
        changes = "-" if row["lost"] is None else f"{row['lost']}/{row['won']}"
        figures = (_number(row[name]) for name in ("a", "b", "difference"))
        p_value = _number(row["p_value"])
        table.add_row(row["metric"], *figures, bounds, p_value, str(row["items"] or "-"), changes,
                      row["better"])  # fmt: skip
    console.print(table)
    if value["regressions"]:
        table = _table("Where B is worst", "metric", "item", "A", "B")
        for row in value["regressions"]:
            cells = (_number(row[arm]) for arm in ("a", "b"))
            texts = (row[f"text_{arm}"] for arm in ("a", "b"))
            both = (f"{c}\n{escape(t)}" if t else c for c, t in zip(cells, texts, strict=True))
            asked = "\n".join(escape(part) for part in (row["item"], row["prompt"]) if part)
            table.add_row(row["metric"], asked, *both)
        console.print(table)
    told = f"{len(value['changed'])} items are right in one and wrong in the other"
    console.print(f"changed     {told}")


def outlook(console: Console, value: dict[str, Any]) -> None:
    """A dry run."""
    table = _table("What this run would do", "step", "state", "about")
    for step in value["steps"]:
        seconds = step["seconds"]
        table.add_row(step["step"], step["state"], "-" if seconds is None else f"{seconds:.0f} s")
    console.print(table)
    for name in ("memory", "disk"):
        size = value[f"{name}_bytes"]
        console.print(f"{name:7} {'-' if size is None else f'about {size / 1e9:.1f} GB'}")
    console.print(f"basis   {value['basis']}")


def survey(console: Console, value: dict[str, Any]) -> None:
    """Every plan of a survey: its figures with their intervals, and the command that runs it."""
    rows = value["selectors"] | {row["name"]: row for row in value["frontier"]}
    every = dict.fromkeys(metric for row in rows.values() for metric in row["metrics"])
    # `perplexity` beside `perplexity.text` is the same figure again
    metrics = [m for m in every if not any(other.startswith(f"{m}.") for other in every)]
    timed = any("predicted_prefill_seconds" in row for row in rows.values())
    costs = ("KV bytes", *(("prefill", "per token") if timed else ()))
    table = _table(f"Survey {value['run_id']}", "plan", "converted", *costs, *metrics)
    for name, row in rows.items():
        converted = sum(strategy != "keep" for strategy in row["plan"].values())
        shares = [row["predicted_kv_bytes_ratio"]]
        if timed:
            shares += [row.get(f"predicted_{part}_seconds_ratio") for part in ("prefill", "decode")]
        told = ("-" if share is None else f"{share:.1%}" for share in shares)
        figures = (_with_interval(row, metric) for metric in metrics)
        table.add_row(escape(name), f"{converted} of {len(row['plan'])}", *told, *figures)
    console.print(table)
    for name, row in rows.items():
        for cost in row.get("costs", ()):
            base, mine = (cost["request"][arm] for arm in ("base", "candidate"))
            console.print(
                f"{escape(name)}, requests of {cost['prompt_tokens']:,} + {cost['new_tokens']:,} "
                f"tokens, batch {cost['batch']}: {mine:.4g} {row['currency']} per million tokens "
                f"instead of {base:.4g}"
            )
    for one in value["predictions"]:
        if one["spearman"] is not None:
            console.print(
                f"The order of {one['plans']} plans by {one['metric']} was foreseen with a rank "
                f"correlation of {one['spearman']:.2f} (Spearman)."
            )
    if stability := value.get("stability"):  # surveys made before there was one
        _stability(console, stability)
    console.print("Each plan is a file, to be edited and run:")
    for name, row in rows.items():
        # recipes' own text may look like markup
        text = f"  {name}\n    {row['command']}"
        console.print(text, soft_wrap=True, highlight=False, markup=False)
    if value["missing"]:
        console.print(f"Before it converts, the recipe needs {', '.join(value['missing'])}.")
    console.print(f"report      {value['report']}", soft_wrap=True)


def _stability(console: Console, value: dict[str, Any]) -> None:
    """Plans chosen from two texts: how alike they are, and the perplexity ratio of each."""
    pairs = [(on, text) for on in value["held_out"] for text in value["texts"]]
    columns = [escape(f"on {on}, from {text}") for on, text in pairs]
    table = _table("Chosen from two texts", "plan", "same strategy", "Jaccard", *columns)
    for name, row in value["plans"].items():
        figures = []
        for on, text in pairs:
            ratio = row["damage"][on][text]["perplexity_ratio"]
            bounds = f"{_number(ratio['low'])} to {_number(ratio['high'])}"
            figures.append(f"{_number(ratio['value'])}\n{bounds}")
        same = f"{row['same_strategy']:.0%}"
        table.add_row(escape(name), same, f"{row['jaccard']:.2f}", *figures)
    console.print(table)


def _with_interval(row: dict[str, Any], metric: str) -> str:
    """The figure, and its 95 % interval below."""
    figure = _number(row["metrics"].get(metric))
    if bounds := row["intervals"].get(metric):
        return f"{figure}\n{_number(bounds[0])} to {_number(bounds[1])}"
    return figure


def runs(console: Console, value: dict[str, Any]) -> None:
    """All runs of a home folder."""
    table = _table("Runs", "run", "state", "started", "finished", "reason")
    for record in value["runs"]:
        table.add_row(*(str(record[k] or "") for k in (
            "run_id", "state", "started_at", "finished_at", "reason",
        )))  # fmt: skip
    console.print(table)


def spending(console: Console, value: dict[str, Any]) -> None:
    """One month a row; what is not known is said beneath."""
    table = _table("Spent by month", "month", "runs", "device hours", "money", "versions")
    for month in value["months"]:
        steps = month["device_hours"]
        costly = ", ".join(
            f"{step} {hours:.2f}" for step, hours in sorted(steps.items(), key=lambda s: -s[1])[:3]
        )
        money = [f"{amount:.2f} {currency}" for currency, amount in month["money"].items()]
        if month["unpriced_hours"]:
            money.append(f"{month['unpriced_hours']:.2f} h without a price")
        table.add_row(
            month["month"],
            ", ".join(f"{count} {state}" for state, count in month["runs"].items()),
            f"{sum(steps.values()):.2f} ({costly})" if steps else "-",
            ", ".join(money) or "-",
            ", ".join(month["versions"]) or "-",
        )
    console.print(table)
    for month in value["months"]:
        if month["unknown"]:
            console.print(f"{month['month']}: no times of {', '.join(month['unknown'])}")


def methods(console: Console, value: dict[str, Any]) -> None:
    """Every component with its purpose and options."""
    for kind, components in value["options"].items():
        table = _table(kind.capitalize(), "name", "purpose", "options")
        for name, about in components.items():
            options = ", ".join(f"{k}={v}" for k, v in about["options"].items())
            table.add_row(name, about["purpose"], options)
        console.print(table)
    console.print(f"Families: {', '.join(value['families'])}")


def exported(console: Console, value: dict[str, Any]) -> None:
    """What was exported, and how close it is."""
    console.print(f"exported    {value['model_type']}, {value['layers']} layers, to {value['to']}")
    console.print(f"agreement   relative RMS of the logits {value['relative_rms']:.1e} (fp32)")
    console.print(f"folder      {value['folder']}", soft_wrap=True)


def cleaned(console: Console, value: dict[str, Any]) -> None:
    """What was removed, or would be."""
    for sha256, why in value["kept"].items():
        console.print(f"kept        {sha256[:12]}  {why}", soft_wrap=True)
    for sha256, size in value["removed"].items():
        console.print(f"removed     {sha256[:12]}  {size / 1e6:,.1f} MB")
    would = "would be removed" if value["dry_run"] else "removed"
    console.print(
        f"{len(value['removed'])} trees, {value['results']} results and {value['unfinished']} "
        f"unfinished writes {would}, {value['bytes'] / 1e6:,.1f} MB"
    )


def inspected(console: Console, value: dict[str, Any]) -> None:
    """What a checkpoint is."""
    table = _table(f"Checkpoint {value['checkpoint']}", "layers", "mixer", "feed-forward")
    for run in value["layer_map"]:
        first, last = run["start"], run["stop"] - 1
        options = ", ".join(f"{k} {v}" for k, v in run["mixer"].items() if k != "kind")
        mixer = f"{run['mixer']['kind']} ({options})" if options else run["mixer"]["kind"]
        layers = str(first) if first == last else f"{first}-{last}"
        table.add_row(layers, mixer, run["feed_forward"]["kind"])
    console.print(table)
    memory = _table("Cache of one row", "tokens", "bytes", "full attention", "ratio")
    for tokens, row in (value["kv_bytes"] | {"each more": value["kv_bytes_per_token"]}).items():
        figures = (f"{row['amount']:,.0f}", f"{row['full_attention']:,.0f}", f"{row['ratio']:.3f}")
        memory.add_row(tokens, *figures)
    console.print(memory)
    parameters, stored = value["parameters"], value["stored"]
    console.print(f"family      {value['base_model_type']}, {value['dtype']}")
    console.print(
        f"parameters  {parameters['amount']:,} ({parameters['ratio']:.3f} of the model with full "
        "attention)"
    )
    console.print(
        f"stored      {stored['elements']:,} elements, {stored['bytes']:,} bytes in "
        f"{stored['files']} file{'s' if stored['files'] > 1 else ''}"
    )
    can = value["capabilities"]
    console.print(f"needs       {', '.join(f'{k} {v}' for k, v in can['needs'].items())}")
    engines = [name for name, runs in can["serving"].items() if runs]
    console.print(f"serving     {', '.join(engines)}; crop {can['crop']}, state {can['stateful']}")
    console.print(f"stock       {can['stock']['model_type'] or 'no'}")
    for obstacle in can["stock"]["obstacles"]:
        console.print(f"  against   {obstacle}", soft_wrap=True)


def generated(console: Console, value: dict[str, Any]) -> None:
    """The text alone on stdout; what it took on stderr."""
    console.out(value["text"], highlight=False)
    weights, cache = (value[name] / 1e6 for name in ("peak_weight_bytes", "kv_bytes"))
    Console(stderr=True).print(
        f"{value['new_tokens']} tokens, {value['tokens_per_s']:.1f} a second; "
        f"weights {weights:.1f} MB at most, cache {cache:.1f} MB",
        highlight=False,
    )


def findings(console: Console, value: dict[str, Any]) -> None:
    """What doctor found."""
    marks = {"ok": "[green]ok[/green]", "note": "note", "broken": "[red]broken[/red]"}
    table = _table("Doctor", "check", "state", "finding")
    for finding in value["checks"]:
        table.add_row(finding["check"], marks[finding["state"]], finding["finding"])
    console.print(table)


def moved(console: Console, value: dict[str, Any]) -> None:
    """A move of a champion's alias."""
    if not value["moved"]:
        console.print(f"{value['model']}: that version is its {value['alias']} already")
        return
    before = f"version {value['before']}" if value["before"] else "none"
    console.print(
        f"{value['action']:11} {value['model']}@{value['alias']}: {before} -> version "
        f"{value['version']}",
        highlight=False,
    )
    console.print(f"approved    by {value['by']} ({value['how']}): {value['reason']}", markup=False)


def history(console: Console, value: dict[str, Any]) -> None:
    """A registered model's versions, the moves of its champion, and its latest roll-out."""
    table = _table(
        f"Versions of {value['model']}",
        *("version", "aliases", "decision", "until", "beside champion", "state"),
    )
    for row in value["versions"]:
        cells = (row["version"], ", ".join(row["aliases"]), row["decision"], row["expires_at"][:16])
        table.add_row(*cells, row["compared_champion"], escape(row["state"]))
    console.print(table)
    table = _table("Moves of its champion", "when", "what", "from", "to", "by", "reason")
    for move in value["moves"]:
        action = move["action"] + ("" if move["finished_at"] else ", cut off")
        places = (move["before"] or "-", move["version"])
        by = f"{move['by']} ({move['how']})"
        table.add_row(move["started_at"], action, *places, escape(by), escape(move["reason"]))
    console.print(table)
    if state := value["rollout"]:
        console.print(
            f"roll-out {state['attempt']}  version {state['challenger']} beside champion "
            f"{state['champion']}: {_stand(state)} since {state['since']}",
            highlight=False,
        )


def _stand(state: dict[str, Any]) -> str:
    """How a roll-out stands, with the share that counts."""
    share = "" if state["status"] == "promoted" else f", share {state['share']:.0%}"
    return f"{state['status']}{share}"


def rolled_out(console: Console, value: dict[str, Any]) -> None:
    """A roll-out: every limit at each stage, and how it stands."""
    state = value["state"]
    title = f"Roll-out {state['attempt']} of {state['model']}: version {state['challenger']} beside"
    table = _table(
        f"{title} champion {state['champion']}",
        *("stage", "pairs", "figure", "value", "bound", "limit", "verdict"),
    )
    for stage in value["stages"]:
        about = (stage["stage"], str(stage["pairs"]))
        for check in stage["checks"]:
            figures = (_number(check[name]) for name in ("value", "bound", "limit"))
            verdict = check["verdict"] + (f": {check['reason']}" if check["reason"] else "")
            table.add_row(*about, check["figure"], *figures, escape(verdict))
            about = ("", "")
        table.add_row(*about, "", "", "", "", stage["verdict"], end_section=True)
    console.print(table)
    console.print(f"status      {_stand(state)}")
    if state["reason"]:
        console.print(f"because     {state['reason']}", markup=False, soft_wrap=True)
    console.print(f"records     {value['records']}", markup=False, soft_wrap=True)


def assigned(console: Console, value: dict[str, Any]) -> None:
    """Who serves a request."""
    told = f"version {value['version']}  {value['side']}, share {value['share']:.0%}"
    console.print(told, highlight=False)
