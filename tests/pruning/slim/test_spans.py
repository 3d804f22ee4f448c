import pytest
import torch
from torch.nn import functional

from pruning.slim.spans import Spans, computes_spans


def test_processors_have_no_such_kernels() -> None:
    assert not computes_spans(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.03), (torch.float16, 0.004)]
)
@pytest.mark.parametrize("head_dim", [8, 26, 64])
@pytest.mark.parametrize("first_only", [False, True])
def test_spans_attend_within_each_sequence(
    dtype: torch.dtype, tolerance: float, head_dim: int, first_only: bool
) -> None:
    torch.manual_seed(0)
    lengths, heads = [3, 1, 60, 7], 2
    offsets = [sum(lengths[:count]) for count in range(len(lengths) + 1)]
    tokens = offsets[-1] + 5  # the last five are of no sequence
    width = heads * head_dim
    qkv = torch.randn(tokens, 3 * width, device="cuda", dtype=dtype)
    query, key_value = qkv.split((width, 2 * width), dim=1)  # not contiguous, as in the model
    spans = Spans(torch.tensor([*offsets, offsets[-1]], dtype=torch.int32, device="cuda"), 64)
    asked = query[offsets] if first_only else query
    context = spans.context(asked, key_value, head_dim, first_only=first_only)
    assert context.shape == asked.shape and context.dtype == dtype
    parts = []
    for first, length in zip(offsets, lengths, strict=False):
        keys = slice(first, first + length)
        queries = slice(first, first + 1) if first_only else keys
        key, value = key_value[keys].double().view(length, 2, heads, head_dim).permute(1, 2, 0, 3)
        asking = query[queries].double().view(-1, heads, head_dim).transpose(0, 1)
        parts.append(functional.scaled_dot_product_attention(asking, key, value).transpose(0, 1).flatten(1))
    expected = torch.cat(parts).to(dtype)
    torch.testing.assert_close(context[: len(expected)], expected, atol=tolerance, rtol=tolerance)
