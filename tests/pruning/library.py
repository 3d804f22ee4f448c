"""The same numbers by transformers and plain autograd, one row a batch: what the pass is held against."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertForSequenceClassification

from pruning.architectures.bert import LAYER_SLOTS
from pruning.data import LabelledSet
from pruning.tensor_sizes import PRUNABLE_SLOTS
from pruning.tokenization import Encoded

FIRST_TOKEN_ONLY = ("query", "attention_output", "ffn_in", "ffn_out")
"""Slots that the last layer computes for the first token alone, since its head reads no other."""

Hook = Callable[[str, Tensor, Tensor], Tensor | None]
"""(name of the weight, inputs [T, I], outputs [T, O]) -> other outputs, or None."""


def logits_of_row(model: BertForSequenceClassification, sequence: Encoded) -> Tensor:
    """Return the logits [C] of one text."""
    ids, type_ids = torch.tensor([sequence.ids]), torch.tensor([sequence.type_ids])
    logits: Tensor = model(input_ids=ids, token_type_ids=type_ids).logits[0]
    return logits


def summed_loss(model: BertForSequenceClassification, rows: LabelledSet) -> Tensor:
    """Return the cross-entropy summed over the rows."""
    losses = [
        functional.cross_entropy(logits_of_row(model, sequence), label)
        for sequence, label in zip(rows.sequences, rows.labels, strict=True)
    ]
    return torch.stack(losses).sum()


def linears_of(model: BertForSequenceClassification) -> dict[str, nn.Module]:
    """Return the linear layers by the name of their weight, in the order in which they compute."""
    found = {
        f"layers.{layer}.{slot}.weight": model.get_submodule(f"bert.encoder.layer.{layer}.{LAYER_SLOTS[slot]}")
        for layer in range(model.config.num_hidden_layers)
        for slot in PRUNABLE_SLOTS
    }
    return {**found, "pooler.weight": model.bert.pooler.dense, "classifier.weight": model.classifier}


def gradients_of(model: BertForSequenceClassification) -> dict[str, Tensor]:
    """Return the gradients that the prunable weights and their biases hold, under our names."""
    gradients = {}
    for name, linear in linears_of(model).items():
        if name.startswith("layers."):
            for part, parameter in linear.named_parameters():
                assert parameter.grad is not None
                gradients[name.removesuffix("weight") + part] = parameter.grad.clone()
    return gradients


def computed_tokens(name: str, num_layers: int) -> slice:
    """Return which tokens of a text we compute of a linear layer's output."""
    place = name.split(".")
    last = place[0] != "layers" or (int(place[1]) == num_layers - 1 and place[2] in FIRST_TOKEN_ONLY)
    return slice(0, 1) if last else slice(None)


@contextmanager
def hooked(model: BertForSequenceClassification, hook: Hook) -> Iterator[None]:
    """Let ``hook`` see, and change, what every linear layer computes for one text."""

    def forward_hook(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor | None]:
        def call(_: nn.Module, inputs: tuple[Tensor], outputs: Tensor) -> Tensor | None:
            changed = hook(name, inputs[0].view(-1, inputs[0].shape[-1]), outputs.view(-1, outputs.shape[-1]))
            return None if changed is None else changed.view_as(outputs)

        return call

    handles = [linear.register_forward_hook(forward_hook(name)) for name, linear in linears_of(model).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
