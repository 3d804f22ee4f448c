import pytest
import torch
from torch.nn import functional

from pruning.slim.attention import LONGEST, SHORT, attend


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("length", [1, 2, 25, SHORT - 1, SHORT, SHORT + 1, max(LONGEST.values()) + 1])
@pytest.mark.parametrize("first_only", [False, True])
def test_every_way_gives_softmax_attention(dtype: torch.dtype, length: int, first_only: bool) -> None:
    torch.manual_seed(length)
    key, value = torch.randn(3, length, 2, 8, dtype=dtype), torch.randn(3, length, 2, 8, dtype=dtype)
    query = torch.randn(3, 1 if first_only else length, 2, 8, dtype=dtype)
    exact = functional.scaled_dot_product_attention(
        *(part.double().transpose(1, 2) for part in (query, key, value))
    ).transpose(1, 2)
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    context = attend(query, key, value)
    assert context.dtype == dtype
    torch.testing.assert_close(context.double(), exact.reshape(-1, 16), atol=tolerance, rtol=tolerance)


def test_gradients_pass() -> None:
    query, key, value = (torch.randn(2, 5, 2, 8, requires_grad=True) for _ in range(3))
    attend(query, key, value).sum().backward()
    assert all(part.grad is not None and torch.isfinite(part.grad).all() for part in (query, key, value))
