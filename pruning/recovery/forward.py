"""One forward pass with the hidden states of every layer, on any device, such that gradients pass.

Letters: T tokens, B sequences, C labels, D hidden.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pruning.slim.attention import Grouped
from pruning.slim.bert import SlimBert, Tap
from pruning.slim.packed import PackedBatch, TokenSequence


def batch_on(sequences: Sequence[TokenSequence], device: torch.device) -> PackedBatch:
    """Return the sequences laid end to end, attended to in groups on every device: spans have no gradient here."""
    batch = PackedBatch.from_sequences(sequences)
    assert isinstance(batch.layout, Grouped)  # the layout of CPUs
    return replace(
        batch,
        ids_T=batch.ids_T.to(device),
        type_ids_T=batch.type_ids_T.to(device),
        positions_T=batch.positions_T.to(device),
        first_B=batch.first_B.to(device),
        layout=Grouped(tuple(group.to(device) for group in batch.layout.groups)),
    )


def outputs_of(model: SlimBert, batch: PackedBatch, tap: Tap | None = None) -> tuple[Tensor, list[Tensor]]:
    """Return the logits [B, C] and what every layer gives: [T, D]; of the last one the tokens that the head reads.

    Those are the first ones, [B, D]: nothing else is computed there. Rows that the model adds for the sake of its
    kernels are left out.
    """
    states: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _, __, output: states.append(output)) for layer in model.layers]
    try:
        logits = model(batch, tap)
    finally:
        for hook in hooks:
            hook.remove()
    return logits, [*(state[: batch.num_tokens] for state in states[:-1]), states[-1][: logits.shape[0]]]
