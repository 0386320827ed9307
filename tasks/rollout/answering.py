"""One side of a roll-out: a loaded checkpoint that answers requests one at a time."""

from collections.abc import Sequence
from pathlib import Path

import torch

from layerwright.tasks.contracts.returns import Price
from layerwright.tasks.contracts.rollout import Answer, Request
from layerwright.tasks.models.loading import load_checkpoint
from layerwright.tasks.offload.generation import encode, find_tokenizer
from layerwright.tasks.passes.likelihood import target_nll
from layerwright.tasks.probes.continuation import Continuation, continuation
from layerwright.tasks.probes.text_match import MATCHES
from layerwright.tasks.recipe.rollout import RolloutPolicy
from layerwright.tasks.timing.speed import now

WARM_UP_TOKENS = 4


class Respondent:
    """A loaded checkpoint with its tokenizer."""

    def __init__(
        self, folder: Path, policy: RolloutPolicy, price: Price | None, device: str
    ) -> None:
        self.tokenizer = find_tokenizer(folder)
        self.model = load_checkpoint(folder, device)
        self.policy, self.price, self.device = policy, price, device

    def answer(self, request: Request) -> tuple[Answer, Sequence[int]]:
        """The greedy answer and its tokens.

        An exception becomes an answer with an error, as a serving process would return it.
        """
        found, why, match = Continuation("", ()), "", None
        started = now(self.device)
        try:
            found = self._generate(request)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
        seconds = now(self.device) - started
        if request.reference is not None:
            match = float(MATCHES[self.policy.match](found.text, (request.reference,)))
        answer = Answer(
            text=found.text,
            new_tokens=len(found.tokens),
            seconds=seconds,
            cost=self.price.of(seconds) if self.price else None,
            match=match,
        )
        return failed(answer, why) if why else answer, found.tokens

    def _generate(self, request: Request) -> Continuation:
        prompt = self._prompt(request)
        new = request.max_new_tokens or self.policy.max_new_tokens
        positions = self.model.config.max_position_embeddings
        if len(prompt) + new > positions:
            raise ValueError(
                f"{len(prompt)} prompt tokens and {new} new tokens exceed the model's {positions} "
                "positions"
            )
        return continuation(self.model, self.tokenizer, prompt, new)

    @torch.inference_mode()
    def nll(self, request: Request, tokens: Sequence[int]) -> float:
        """Mean negative log-likelihood of ``tokens`` after the request's prompt, in nats."""
        ids_1T = torch.tensor([[*self._prompt(request), *tokens]], device=self.device)
        logits_1NV = self.model(ids_1T[:, :-1], use_cache=False, logits_to_keep=len(tokens)).logits
        return target_nll(logits_1NV, ids_1T[:, -len(tokens) :]).mean().item()

    def warm_up(self, request: Request) -> None:
        """Answer once, so that no measured request includes one-time work."""
        self.answer(request.model_copy(update={"max_new_tokens": WARM_UP_TOKENS}))

    def _prompt(self, request: Request) -> list[int]:
        return encode(self.tokenizer, request.prompt, self.policy.chat)[0].tolist()


def failed(answer: Answer, why: str) -> Answer:
    """The answer as a failure: no text, and match 0 if the request has a reference."""
    match = None if answer.match is None else 0.0
    update = {"text": "", "new_tokens": 0, "error": why[:500], "match": match}
    return answer.model_copy(update=update)
