"""Find a checkpoint by its folder or its run; export it; print what is known about it."""

from pathlib import Path

from rich.console import Console

from layerwright.flows.command_line.options import new_table
from layerwright.flows.outcome.model_cards import facts_of_folder
from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.contracts.checkpoint import Exported, Generated, Inspection
from layerwright.tasks.errors import InputError
from layerwright.tasks.home import Home
from layerwright.tasks.report.model_card import Form, render_card
from layerwright.tasks.store.open import open_store


def checkpoint_folder(name: str, home: Home) -> Path:
    """The folder of a checkpoint, by its folder, a run id, its beginning, or ``latest``.

    InputError if ``name`` is neither a folder nor a run, or the run has no checkpoint.
    IntegrityError if the run's checkpoint is missing from the store, or damaged.
    """
    return _found(name, home)[0]


def _found(name: str, home: Home) -> tuple[Path, RunFolder | None]:
    """The checkpoint's folder, and its run if the user named a run."""
    if Path(name).is_dir():
        return Path(name), None
    try:
        folder = RunFolder.find(home, name)
    except InputError as error:
        raise InputError(f"{name!r} is not a folder, and {error.message}") from error
    summary = folder.summary()
    if summary is None:
        record = folder.record()
        raise InputError(
            f"run {record.run_id} has no checkpoint: it is {record.state} {record.reason}".rstrip(),
            remedy=f"layerwright resume {record.run_id}",
        )
    tree = summary.checkpoint
    store = open_store(tree.uri.rpartition("/trees/")[0], home.trees)
    return store.open_tree(tree.sha256), folder


def export_checkpoint(name: str, home: Home, form: Form, target: Path) -> Exported:
    """Write a checkpoint into ``target`` in a form that serving engines load, with its card. The
    evidence of a run is part of the card; errors as for `checkpoint_folder`.
    """
    folder, run = _found(name, home)
    facts = facts_of_folder(folder, run)
    if form == "stock":
        from layerwright.tasks.export.stock import export_stock as export
    elif form == "gguf":
        from layerwright.tasks.export.gguf import export_gguf as export
    else:
        from layerwright.tasks.export.folder import export_transformers as export
    return export(folder, target, render_card(facts, form) if facts else None)


def show_export(console: Console, export: Exported) -> None:
    """An export, and how close its logits are."""
    console.print(f"exported    {export.model_type}, {export.layers} layers, to {export.to}")
    console.print(f"agreement   relative RMS of the logits {export.relative_rms:.1e} (fp32)")
    console.print(f"folder      {export.folder}", soft_wrap=True)


def show_inspection(console: Console, found: Inspection) -> None:
    """Layers, cache, size and capabilities of a checkpoint."""
    table = new_table(f"Checkpoint {found.checkpoint}", "layers", "mixer", "feed-forward")
    for run in found.layer_map:
        first, last = run.start, run.stop - 1
        options = ", ".join(f"{k} {v}" for k, v in run.mixer.items() if k != "kind")
        mixer = f"{run.mixer['kind']} ({options})" if options else run.mixer["kind"]
        layers = str(first) if first == last else f"{first}-{last}"
        table.add_row(layers, mixer, run.feed_forward["kind"])
    console.print(table)
    memory = new_table("Cache of one row", "tokens", "bytes", "full attention", "ratio")
    for tokens, share in (found.kv_bytes | {"each more": found.kv_bytes_per_token}).items():
        figures = (f"{share.amount:,.0f}", f"{share.full_attention:,.0f}", f"{share.ratio:.3f}")
        memory.add_row(tokens, *figures)
    console.print(memory)
    parameters, stored = found.parameters, found.stored
    console.print(f"family      {found.base_model_type}, {found.dtype}")
    console.print(
        f"parameters  {parameters.amount:,} ({parameters.ratio:.3f} of the model with full "
        "attention)"
    )
    console.print(
        f"stored      {stored.elements:,} elements, {stored.bytes:,} bytes in "
        f"{stored.files} file{'s' if stored.files > 1 else ''}"
    )
    can = found.capabilities
    console.print(f"needs       {', '.join(f'{k} {v}' for k, v in can['needs'].items())}")
    engines = [name for name, runs in can["serving"].items() if runs]
    console.print(f"serving     {', '.join(engines)}; crop {can['crop']}, state {can['stateful']}")
    console.print(f"stock       {can['stock']['model_type'] or 'no'}")
    for obstacle in can["stock"]["obstacles"]:
        console.print(f"  against   {obstacle}", soft_wrap=True)


def show_generated(console: Console, generated: Generated) -> None:
    """The text alone on stdout; speed and memory on stderr."""
    console.out(generated.text, highlight=False)
    weights, cache = generated.peak_weight_bytes / 1e6, generated.kv_bytes / 1e6
    Console(stderr=True).print(
        f"{generated.new_tokens} tokens, {generated.tokens_per_s:.1f} a second; "
        f"weights {weights:.1f} MB at most, cache {cache:.1f} MB",
        highlight=False,
    )
