"""Which of two versions answers a request: a pure function that a serving proxy can copy."""

from __future__ import annotations

import hashlib

from layerwright.tasks.contracts.rollout import Side


def assign(model: str, request_id: str, share: float) -> Side:
    """The side that answers a request, the same whoever asks, whenever and wherever.

    The first four bytes of sha256(model + newline + request_id), UTF-8, read as a big-endian
    number and divided by 2^32, are the request's point in [0, 1); the challenger has the points
    below ``share``. So a request that it has at one share it has at every larger one, and another
    model's roll-out picks other requests. The point and its comparison are exact in doubles.

    Args:
        model: the registered model's name.
        request_id: whatever shall stay on one side: a request's id, a session's or a user's.
        share: of the requests, in [0, 1].
    """
    digest = hashlib.sha256(f"{model}\n{request_id}".encode(errors="surrogatepass")).digest()
    point = int.from_bytes(digest[:4], "big") / 2**32
    return "challenger" if point < share else "champion"
