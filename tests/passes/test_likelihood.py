"""NLL per token against Transformers' own loss and against softmax written out."""

import pytest
import torch
from tiny import tiny_llama, tiny_tokens

from layerwright.tasks.passes.likelihood import target_nll, token_nll


def test_mean_is_the_loss_of_the_original_model() -> None:
    ids = tiny_tokens(2, 40)
    out = tiny_llama()(ids, labels=ids)
    assert token_nll(out.logits, ids).mean().item() == pytest.approx(out.loss.item(), rel=1e-6)


@pytest.mark.parametrize("tokens", [1, 255, 256, 257, 600])
def test_every_position_whatever_the_chunks(tokens: int) -> None:
    logits = torch.randn(2, tokens, 11, generator=torch.Generator().manual_seed(tokens))
    targets = tiny_tokens(2, tokens) % 11
    expected = -logits.softmax(-1).gather(-1, targets[..., None]).squeeze(-1).log()
    torch.testing.assert_close(target_nll(logits, targets), expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_logits_are_summed_in_fp32() -> None:
    logits = torch.zeros(1, 2, 1000, dtype=torch.bfloat16)
    assert token_nll(logits, torch.zeros(1, 2, dtype=torch.long)).item() == pytest.approx(
        torch.tensor(1000.0).log().item(), rel=1e-6
    )
