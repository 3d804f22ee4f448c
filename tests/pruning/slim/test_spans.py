import pytest
import torch
from hypothesis import given as given_any
from hypothesis import strategies as st
from torch.nn import functional

from pruning.cost import HeadDims
from pruning.slim.attention import Heads
from pruning.slim.spans import EVEN_WIDTH, Spans, computes_spans, kernel_operands


def test_processors_have_no_such_kernels() -> None:
    assert not computes_spans(torch.device("cpu"))


@given_any(
    count=st.integers(1, 3), dims=st.builds(HeadDims, st.integers(1, 20), st.integers(1, 20)), tokens=st.integers(1, 4)
)
def test_kernels_get_heads_of_one_width_that_give_the_same_context(count: int, dims: HeadDims, tokens: int) -> None:
    heads = Heads(count, dims, 0.2)
    query = torch.randn(tokens, heads.query_width)
    key, value = torch.randn(tokens, heads.query_width), torch.randn(tokens, heads.value_width)
    wide = kernel_operands(query, torch.cat([key, value], 1), heads)
    assert {part.shape for part in wide} == {(tokens, count, wide[0].shape[2])}
    assert wide[0].shape[2] % EVEN_WIDTH == 0
    given = functional.scaled_dot_product_attention(*(part.transpose(0, 1) for part in wide), scale=heads.scale)
    parts = (part.unflatten(1, (count, -1)).transpose(0, 1) for part in (query, key, value))
    expected = functional.scaled_dot_product_attention(*parts, scale=heads.scale)
    torch.testing.assert_close(given[..., : dims.vo], expected)
    assert not given[..., dims.vo :].any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.03), (torch.float16, 0.004)]
)
@pytest.mark.parametrize("dims", [HeadDims(8, 8), HeadDims(26, 26), HeadDims(64, 64), HeadDims(8, 24), HeadDims(34, 6)])
@pytest.mark.parametrize("first_only", [False, True])
def test_spans_attend_within_each_sequence(
    dtype: torch.dtype, tolerance: float, dims: HeadDims, first_only: bool
) -> None:
    torch.manual_seed(0)
    lengths, heads = [3, 1, 60, 7], Heads(2, dims, 0.2)
    offsets = [sum(lengths[:count]) for count in range(len(lengths) + 1)]
    tokens = offsets[-1] + 5  # the last five are of no sequence
    widths = (heads.query_width, heads.query_width + heads.value_width)
    qkv = torch.randn(tokens, sum(widths), device="cuda", dtype=dtype)
    query, key_value = qkv.split(widths, dim=1)  # not contiguous, as in the model
    spans = Spans(torch.tensor([*offsets, offsets[-1]], dtype=torch.int32, device="cuda"), 64)
    asked = query[offsets] if first_only else query
    context = spans.context(asked, key_value, heads, first_only=first_only)
    assert context.shape == (len(asked), heads.value_width) and context.dtype == dtype
    parts = []
    for first, length in zip(offsets, lengths, strict=False):
        keys = slice(first, first + length)
        queries = slice(first, first + 1) if first_only else keys
        key, value = key_value[keys].double().split((heads.query_width, heads.value_width), dim=1)
        asking, key, value = (
            part.unflatten(1, (2, -1)).transpose(0, 1) for part in (query[queries].double(), key, value)
        )
        context_NRV = functional.scaled_dot_product_attention(asking, key, value, scale=heads.scale)
        parts.append(context_NRV.transpose(0, 1).flatten(1))
    expected = torch.cat(parts).to(dtype)
    torch.testing.assert_close(context[: len(expected)], expected, atol=tolerance, rtol=tolerance)
