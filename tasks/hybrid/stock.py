"""Finds the class of Transformers that can hold a hybrid model, or the reasons why none can.

A stock model has attention in every layer, full or with a sliding window. In Transformers and vLLM
a window counts the query itself and has no sink tokens, and all windows of a model are equal.
GraniteSWA's windows have learned sink logits. Removed layers are left out of the stock model.
"""

from itertools import groupby
from typing import Any

# A family's class for models that mix windows and full attention; Ministral is Llama with
# `layer_types`.
WINDOWED = {"llama": "ministral", "mistral": "ministral", "qwen2": "qwen2", "qwen3": "qwen3"}
UNBIASED = ("ministral",)
SINK_LOGITS = "granite_swa"  # a Llama block with mixed windows and a sink logit per head
WITH_SINK_LOGITS = ("llama", "mistral", "qwen2")  # families whose blocks GraniteSWA can hold
REMOVED = {"mixer": {"kind": "none"}, "feed_forward": {"kind": "none"}}


def stock_form(
    base_model_type: str, layer_specs: list[dict[str, Any]], biases: list[str]
) -> dict[str, Any]:
    """The stock class for these layers; `biases` are the config's fields that set a bias.

    Returns:
        {"model_type": name of the class, or None if no class fits, "obstacles": the reasons, one
        line for each run of layers or field}.
    """
    kept = [spec for spec in layer_specs if spec != REMOVED]
    windows = {window for spec in kept if (window := layer_window(spec)) is not None}
    model_type: str | None = base_model_type
    # Mistral has the same window in all layers, or none.
    logits = any(spec["mixer"]["kind"] == "window" for spec in kept)
    if logits:
        model_type = SINK_LOGITS
    elif windows and not (base_model_type == "mistral" and all(map(layer_window, kept))):
        model_type = WINDOWED.get(base_model_type)
    obstacles = named_runs([layer_obstacle(spec) for spec in layer_specs])
    if not kept:
        obstacles.append("every layer is removed")
    if len(windows) > 1:
        by_layer = (layer_window(spec) for spec in layer_specs)
        runs = named_runs([f"a window of {window}" if window else None for window in by_layer])
        obstacles.append(f"windows differ, but a stock model has only one: {'; '.join(runs)}")
    if logits and base_model_type not in WITH_SINK_LOGITS:
        obstacles.append(
            f"the family {base_model_type} has no stock class with sink logits: GraniteSWA holds "
            f"{', '.join(WITH_SINK_LOGITS)}, which have no norms of queries and keys"
        )
    if model_type is None:
        obstacles.append(f"the family {base_model_type} has no stock class with sliding windows")
    if model_type in UNBIASED and biases:
        obstacles.append(f"{model_type} has no biases: {', '.join(biases)}")
    return {"model_type": None if obstacles else model_type, "obstacles": obstacles}


def layer_window(spec: dict[str, Any]) -> int | None:
    """The window of a layer with a sliding window and no sink tokens; None for other layers."""
    mixer = spec["mixer"]
    windowed = mixer["kind"] == "window" or (mixer["kind"] == "streaming" and not mixer["sinks"])
    return mixer["window"] if windowed else None


def layer_obstacle(spec: dict[str, Any]) -> str | None:
    """Why no stock class has such a layer; None if a class has it."""
    mixer, feed_forward = spec["mixer"]["kind"], spec["feed_forward"]["kind"]
    if spec == REMOVED:
        return None
    if feed_forward == "linear":
        return "a linear map"
    if mixer == "none":
        return "a feed-forward without attention"
    if feed_forward == "none":
        return "no feed-forward"
    if mixer == "streaming" and spec["mixer"]["sinks"]:
        return f"attention sinks ({spec['mixer']['sinks']}) beside the window"
    if mixer not in ("full", "streaming", "window"):
        return f"mixer {mixer}"
    return None


def named_runs(texts: list[str | None]) -> list[str]:
    """One line for each run of layers with the same text, such as "layers 2-4: a linear map"."""
    lines = []
    for text, run in groupby(enumerate(texts), key=lambda item: item[1]):
        layers = [index for index, _ in run]
        if text is not None:
            where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]}-{layers[-1]}"
            lines.append(f"{where}: {text}")
    return lines
