"""What a model answers on many sequences, and how to learn its labels at a fraction of the work."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pruning.heads import Head
from pruning.slim.bert import SlimBert
from pruning.slim.packed import PackedBatch, TokenSequence

BATCH_SEQUENCES = 32
SCREEN_SEQUENCES = 64
"""Batch of the low precision, whose matrix kernels want more rows."""
SAFETY = 2.0
"""A row keeps its low-precision answer if its margin is more than this times the largest difference seen."""

Breath = Callable[[], None]
"""Called after every batch: where whoever shares the processor with others may wait."""


def no_breath() -> None:
    """Go on at once."""


@torch.inference_mode()
def predict_logits(
    model: SlimBert,
    sequences: Sequence[TokenSequence],
    *,
    batch: int = BATCH_SEQUENCES,
    device: torch.device | str = "cpu",
    breath: Breath = no_breath,
) -> Tensor:
    """Return logits [n, labels], float32 on the CPU, in the order given.

    Of a head that reads every token they are [T, labels], sequence after sequence.
    """
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index].ids))
    parts: list[Tensor] = []
    for start in range(0, len(order), batch):
        chosen = [sequences[index] for index in order[start : start + batch]]
        parts.append(model(PackedBatch.from_sequences(chosen, device)))
        breath()
    rows = [1 if model.head.pooled else len(sequences[index].ids) for index in order]
    answers = torch.cat(parts).float().cpu().split(rows)
    return torch.cat([answer for _, answer in sorted(zip(order, answers, strict=True), key=lambda pair: pair[0])])


def judged_logits(
    model: SlimBert, sequences: Sequence[TokenSequence], breath: Breath = no_breath
) -> tuple[Tensor, bool]:
    """Return (logits as of ``predict_logits``, whether they are screened: of a float32 model, most in bfloat16).

    Only labels of texts are screened: what rounding could do to other answers is not read off a margin.
    """
    picks_a_label = model.head is Head.LABEL and not model.quantized
    if picks_a_label and model.classifier.weight.dtype == torch.float32 and multiplies_bfloat16():
        return screened_logits(model, sequences, breath), True
    return predict_logits(model, sequences, breath=breath), False


@torch.inference_mode()
def screened_logits(model: SlimBert, sequences: Sequence[TokenSequence], breath: Breath = no_breath) -> Tensor:
    """Return logits [n, labels] whose largest entries are those of float32, most of them computed in bfloat16.

    All rows are answered in bfloat16; then, from the smallest margin up, they are answered again in float32, until
    the next margin is more than ``SAFETY`` times the largest difference between both precisions seen so far: what the
    rounding can do is read off the rows that it could turn most easily. Where that is much, all rows are answered
    again. That no label differs is measured, not proven: so it was at every level of the embedded model.
    """
    logits = predict_logits(_in_bfloat16(model), sequences, batch=SCREEN_SEQUENCES, breath=breath)
    best, second = logits.topk(2, dim=1).values.unbind(1)
    margins = (best - second).nan_to_num(nan=0.0, posinf=0.0)  # not finite: to be answered again
    order = margins.argsort()
    difference = 0.0
    for start in range(0, len(order), BATCH_SEQUENCES):
        chosen = order[start : start + BATCH_SEQUENCES]
        if start > 0 and float(margins[chosen[0]]) > SAFETY * difference:
            break
        exact = predict_logits(model, [sequences[index] for index in chosen.tolist()], breath=breath)
        change = exact - logits[chosen].nan_to_num()
        difference = max(difference, float((change.amax(1) - change.amin(1)).max()))
        logits[chosen] = exact
    return logits


def multiplies_bfloat16() -> bool:
    """Tell whether this machine has instructions that multiply bfloat16 matrices faster than float32 ones."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _in_bfloat16(model: SlimBert) -> SlimBert:
    return copy.deepcopy(model).to(torch.bfloat16)
