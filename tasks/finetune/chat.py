"""Tokenize chats, and mark the assistant's tokens."""

from __future__ import annotations

import re
from typing import Any

from transformers import PreTrainedTokenizerBase

from layerwright.tasks.errors import InputError

# the tag around the assistant's text in a template; Transformers builds its mask from it
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def encode_turns(
    document: dict, tokenizer: PreTrainedTokenizerBase, what: str
) -> tuple[list[int], list[bool]]:
    """Return the token ids of a chat, and for each whether the assistant wrote it.

    With generation tags in the chat template, Transformers marks the assistant's tokens. Without
    them, the chat is rendered turn by turn: the assistant's text starts after the previous turns
    and the assistant's header, and ends with the end of its turn.

    Args:
        what: the text's name, for error messages.

    Raises:
        InputError: the document is not a chat, the model has no chat template, or the template
            renders the first turns of a chat differently when more turns follow.
    """
    if "messages" not in document:
        raise InputError(
            f"the text {what!r} has a document that is not a chat",
            where="loss_on",
            expected='{"messages": [...]} in every line',
            remedy="set loss_on: all",
        )
    template = tokenizer.chat_template
    if template is None:
        raise InputError(
            f"the text {what!r} is chat data, but the model has no chat template",
            remedy="use a plain text, or a model with a chat template",
        )
    messages = document["messages"]
    if GENERATION.search(str(template)):
        masked: Any = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return masked["input_ids"], [bool(mask) for mask in masked["assistant_masks"]]
    spans, rendered = _assistant_spans(messages, tokenizer, what)
    encoded = tokenizer(
        rendered, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    inside = [
        any(token_start < stop and start < token_stop for start, stop in spans)
        for token_start, token_stop in encoded["offset_mapping"]
    ]
    return encoded["input_ids"], inside


def _assistant_spans(
    messages: list[dict], tokenizer: PreTrainedTokenizerBase, what: str
) -> tuple[list[tuple[int, int]], str]:
    """Return the character ranges of the assistant's turns, and the rendered chat."""

    def render(count: int, *, prompt: bool = False) -> str:
        return str(
            tokenizer.apply_chat_template(
                messages[:count], tokenize=False, add_generation_prompt=prompt
            )
        )

    rendered, spans = render(len(messages)), []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(index, prompt=True) if index else ""
        until = render(index + 1)
        if not until.startswith(before) or not rendered.startswith(until):
            raise InputError(
                f"the model's chat template renders the first turns of a chat in {what!r} "
                "differently when more turns follow, so the assistant's tokens are unknown",
                where="loss_on",
                remedy="set loss_on: all, or use a template with generation tags",
            )
        spans.append((len(before), len(until)))
    return spans, rendered
