"""The commands on one checkpoint: export, inspect, generate."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from layerwright.flows.command_line import options

serving_app = typer.Typer()

CheckpointArgument = Annotated[
    str, Argument(metavar="CHECKPOINT", help="A folder, a run id, or `latest`.")
]


@serving_app.command(rich_help_panel=options.SERVE)
def export(
    checkpoint: CheckpointArgument,
    to: Annotated[
        Literal["transformers", "stock", "gguf"],
        Option(help="The form: with its own code, with Transformers' own classes, or a GGUF file."),
    ],
    out: Annotated[Path, Option(help="The folder to write, new or empty.")],
    home: options.HomeOption = options.HOME,
    as_json: options.AsJson = False,
) -> None:
    """Write a checkpoint in a form that serving engines load, and compare the logits of both."""
    from layerwright.flows.command_line.checkpoints import export_checkpoint, show_export

    options.show_result(export_checkpoint(checkpoint, home, to, out), as_json, show_export)


@serving_app.command(rich_help_panel=options.SERVE)
def inspect(
    checkpoint: CheckpointArgument,
    home: options.HomeOption = options.HOME,
    tokens: Annotated[
        list[int] | None, Option(help="Show the cache at this length in tokens; can be repeated.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a checkpoint's layers, capabilities, memory and size without loading its weights."""
    from layerwright.flows.command_line.checkpoints import checkpoint_folder, show_inspection
    from layerwright.tasks.export.checkpoint import inspect_checkpoint

    folder = checkpoint_folder(checkpoint, home)
    options.show_result(inspect_checkpoint(folder, tokens), as_json, show_inspection)


@serving_app.command(rich_help_panel=options.SERVE)
def generate(
    checkpoint: CheckpointArgument,
    prompt: Annotated[str | None, Option(help="The text to continue.")] = None,
    prompt_file: Annotated[Path | None, Option(help="Read the prompt from a file.")] = None,
    chat: Annotated[bool, Option("--chat", help="Put the prompt into the chat template.")] = False,
    max_new_tokens: Annotated[int, Option(min=1)] = 128,
    memory: Annotated[
        str | None, Option(metavar="SIZE", help="Keep this much of the weights in memory: 300MB.")
    ] = None,
    resident_layers: Annotated[
        int | None, Option(min=1, help="Keep this many layers in memory.")
    ] = None,
    weights: Annotated[
        Literal["disk", "host"], Option(help="Read the other layers from disk or from host memory.")
    ] = "disk",
    home: options.HomeOption = options.HOME,
    as_json: options.AsJson = False,
) -> None:
    """Continue a prompt; layers that exceed the given memory are read when they run."""
    from layerwright.flows.command_line.checkpoints import checkpoint_folder, show_generated
    from layerwright.tasks.device import resolve_device
    from layerwright.tasks.offload.generation import generate_text, read_prompt

    text = read_prompt(prompt, prompt_file)
    generated = generate_text(
        checkpoint_folder(checkpoint, home),
        text,
        chat=chat,
        max_new_tokens=max_new_tokens,
        memory=memory,
        resident_layers=resident_layers,
        source=weights,
        device=resolve_device("auto"),
    )
    options.show_result(generated, as_json, show_generated)
