"""Which tokens of a chat are the assistant's."""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizerBase

from layerwright.tasks.errors import InputError

# what a template marks the assistant's text with, for Transformers' own mask
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def encode_turns(
    document: dict, tokenizer: PreTrainedTokenizerBase, what: str
) -> tuple[list[int], list[bool]]:
    """Token ids of a chat, and which of them the assistant wrote.

    A template with generation marks says so itself. For one without them the chat is rendered turn
    by turn: an assistant's turn is what comes after the turns before it and its own header, up to
    and with whatever closes it.

    Raises:
        InputError: a document that is no chat, a model without a template, or a template that
            renders the beginning of a chat otherwise than the whole.
    """
    if "messages" not in document:
        raise InputError(
            f"the text {what!r} has documents that are no chats",
            where="loss_on",
            expected='{"messages": [...]} in every line',
            remedy="loss_on: all",
        )
    template = tokenizer.chat_template
    if template is None:
        raise InputError(
            f"the text {what!r} is chat data, and the model has no chat template",
            remedy="give a plain text, or a model with a chat template",
        )
    messages = document["messages"]
    if GENERATION.search(template):
        found = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return found["input_ids"], [bool(mask) for mask in found["assistant_masks"]]
    spans, rendered = _spans(messages, tokenizer, what)
    found = tokenizer(
        rendered, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    inside = [
        any(begin < to and start < end for start, to in spans)
        for begin, end in found["offset_mapping"]
    ]
    return found["input_ids"], inside


def _spans(
    messages: list[dict], tokenizer: PreTrainedTokenizerBase, what: str
) -> tuple[list[tuple[int, int]], str]:
    """Where in the rendered chat the assistant's turns stand, as characters."""

    def render(count: int, **options: bool) -> str:
        return tokenizer.apply_chat_template(messages[:count], tokenize=False, **options)

    whole, spans = render(len(messages)), []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(index, add_generation_prompt=True) if index else ""
        until = render(index + 1)
        if not until.startswith(before) or not whole.startswith(until):
            raise InputError(
                f"the model's chat template renders a part of a chat of {what!r} otherwise than "
                "the whole, so the assistant's tokens cannot be told apart",
                where="loss_on",
                remedy="loss_on: all, or a template with generation marks",
            )
        spans.append((len(before), len(until)))
    return spans, whole
