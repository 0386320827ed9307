"""Assign requests to champion or challenger, by a pure function that a serving proxy can copy."""

import hashlib

from layerwright.tasks.contracts.rollout import Side


def assign(model: str, request_id: str, share: float) -> Side:
    """The side that answers a request. Equal arguments always give the same side.

    The first four bytes of sha256(model + newline + request_id) in UTF-8, as a big-endian integer
    divided by 2^32, are the request's point in [0, 1). The challenger answers the request if the
    point is below ``share``. So a request that goes to the challenger also does at every larger
    share, and roll-outs of different models select different requests. Doubles hold the point
    exactly.

    Args:
        model: the registered model's name.
        request_id: of a request; or of a session or user, to keep all its requests on one side.
        share: the challenger's share of traffic, in [0, 1].
    """
    digest = hashlib.sha256(f"{model}\n{request_id}".encode(errors="surrogatepass")).digest()
    point = int.from_bytes(digest[:4], "big") / 2**32
    return "challenger" if point < share else "champion"
