import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pruning.cost import HeadDims
from pruning.slim.attention import LONGEST, SHORT, Heads, attend, attend_group
from pruning.slim.groups import group_lengths

SCALE = 8**-0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("length", [1, 2, 25, SHORT - 1, SHORT, SHORT + 1, max(LONGEST.values()) + 1])
@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize("dims", [HeadDims(8, 8), HeadDims(3, 8), HeadDims(8, 5)])
def test_every_way_gives_softmax_attention_over_the_keys_kept(
    dtype: torch.dtype, length: int, first_only: bool, hides: bool, dims: HeadDims
) -> None:
    torch.manual_seed(length)
    key, value = torch.randn(3, length, 2, dims.qk, dtype=dtype), torch.randn(3, length, 2, dims.vo, dtype=dtype)
    query = torch.randn(3, 1 if first_only else length, 2, dims.qk, dtype=dtype)
    shown = [length, max(1, length - 1), 1] if hides else [length] * 3
    context = attend(query, key, value, kept_up_to(shown, length) if hides else None, SCALE)
    assert context.dtype == dtype
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    for index, count in enumerate(shown):
        expected = exact(query[index], key[index, :count], value[index, :count])
        torch.testing.assert_close(context[index].double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("lengths", [[4, 4, 4], [3, 5, 4], [1, 9, 2], [60, 66, 70]])
@pytest.mark.parametrize("first_only", [False, True])
def test_a_group_attends_within_each_of_its_sequences(lengths: list[int], first_only: bool) -> None:
    torch.manual_seed(0)
    [group] = group_lengths(lengths)
    firsts = [sum(lengths[:index]) for index in range(len(lengths))]
    query_TNH, key_value_T2NH = torch.randn(group.stop, 2, 8), torch.randn(group.stop, 2, 2, 8)
    asked = query_TNH[firsts] if first_only else query_TNH
    heads = Heads(2, HeadDims(8, 8), SCALE)
    context = attend_group(asked.flatten(1), key_value_T2NH.flatten(1), group, heads, first_only=first_only)
    parts = []
    for first, length in zip(firsts, lengths, strict=True):
        keys = slice(first, first + length)
        queries = query_TNH[first : first + (1 if first_only else length)]
        parts.append(exact(queries, key_value_T2NH[keys, 0], key_value_T2NH[keys, 1]))
    torch.testing.assert_close(context, torch.cat(parts).flatten(1).float(), atol=1e-5, rtol=1e-5)


def test_gradients_pass() -> None:
    query, key, value = (torch.randn(2, 5, 2, 8, requires_grad=True) for _ in range(3))
    attend(query, key, value, kept_up_to([5, 2], 5), SCALE).sum().backward()
    assert all(part.grad is not None and torch.isfinite(part.grad).all() for part in (query, key, value))


def kept_up_to(shown: list[int], length: int) -> Tensor:
    return torch.arange(length) < torch.tensor(shown)[:, None]


def exact(query_RNH: Tensor, key_SNH: Tensor, value_SNH: Tensor) -> Tensor:
    query, key, value = (part.double().transpose(0, 1) for part in (query_RNH, key_SNH, value_SNH))
    return functional.scaled_dot_product_attention(query, key, value, scale=SCALE).transpose(0, 1)
