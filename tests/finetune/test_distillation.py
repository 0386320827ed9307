"""The chunked loss is the plain loss, with the plain gradient."""

import pytest
import torch
from tolerance import SAME_MODEL, relative_rms

from layerwright.tasks.finetune.distillation import distillation_loss

POSITIONS, HIDDEN, VOCABULARY = 13, 8, 31


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    student, teacher = draw(POSITIONS, HIDDEN).requires_grad_(), draw(POSITIONS, HIDDEN)
    targets = torch.randint(VOCABULARY, (POSITIONS,), generator=generator)
    return student, teacher, draw(VOCABULARY, HIDDEN), targets


def plain(student, teacher, head, targets, a, b):
    log_q = torch.log_softmax(student @ head.T, -1)
    log_p = torch.log_softmax(teacher @ head.T, -1)
    nll = torch.nn.functional.nll_loss(log_q, targets)
    kl = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
    return a * nll + b * kl, nll, kl


@pytest.mark.parametrize("chunk", [1, 5, 13, 128])
@pytest.mark.parametrize(("a", "b"), [(0.5, 1.0), (1.0, 0.0), (0.0, 2.0)])
def test_equals_the_plain_loss_and_its_gradient(inputs, chunk, a, b):
    student, teacher, head, targets = inputs
    expected = plain(student, teacher, head, targets, a, b)
    expected_gradient = torch.autograd.grad(expected[0], student)[0]

    result = distillation_loss(
        student, teacher, head, targets, next_token_weight=a, kl_weight=b, chunk_positions=chunk
    )
    gradient = torch.autograd.grad(3 * result.loss, student)[0]

    for got, wanted in zip(
        (result.loss, result.next_token_nats, result.kl_nats), expected, strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, 3 * expected_gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precisions_stay_near(inputs, dtype):
    student, teacher, head, targets = inputs
    expected = torch.autograd.grad(plain(*inputs, 0.5, 1.0)[0], student)[0]
    low = student.detach().to(dtype).requires_grad_()
    result = distillation_loss(
        low, teacher.to(dtype), head.to(dtype), targets, next_token_weight=0.5, kl_weight=1.0
    )
    result.loss.backward()
    assert low.grad.dtype == dtype
    assert relative_rms(low.grad.double(), expected) <= SAME_MODEL[dtype]


def test_kl_alone_of_two_equal_models_is_zero(inputs):
    student, _, head, targets = inputs
    result = distillation_loss(
        student, student.detach(), head, targets, next_token_weight=0.0, kl_weight=1.0
    )
    result.loss.backward()
    assert float(result.loss.detach()) == 0.0
    assert float(student.grad.abs().max()) <= 1e-15


def test_without_a_teacher_the_loss_is_the_cross_entropy(inputs):
    student, _, head, targets = inputs
    expected = torch.nn.functional.cross_entropy(student @ head.T, targets)
    wanted = torch.autograd.grad(expected, student)[0]
    result = distillation_loss(
        student, None, head, targets, next_token_weight=1.0, kl_weight=0.0, chunk_positions=5
    )
    assert result.kl_nats is None
    torch.testing.assert_close(result.loss, expected, rtol=1e-12, atol=1e-12)
    gradient = torch.autograd.grad(result.loss, student)[0]
    torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-12)
