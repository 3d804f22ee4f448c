from collections.abc import Callable

import pytest
import torch

from pruning.errors import DeviceMemoryError
from pruning.out_of_memory import memory_for

MORE_THAN_THERE_IS = 1 << 50


@pytest.mark.parametrize("ask", [lambda: torch.empty(MORE_THAN_THERE_IS), lambda: bytearray(MORE_THAN_THERE_IS)])
def test_what_torch_and_python_say_of_a_full_memory_is_refused_with_the_remedy(ask: Callable[[], object]) -> None:
    refusal = pytest.raises(DeviceMemoryError, match=r"no memory is left for a batch: .+; take fewer rows")
    with refusal, memory_for("a batch", "take fewer rows"):
        ask()


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="same device"), memory_for("a batch", "take fewer rows"):
        raise RuntimeError("expected all tensors to be on the same device")
