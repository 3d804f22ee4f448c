"""The checkpoint as a function of token ids and mask alone, for tools that trace it."""

import torch
from transformers import AutoModelForSequenceClassification

INPUTS = ("input_ids", "attention_mask")


class Traceable(torch.nn.Module):
    """Logits of token ids and mask; the mask is made a sum here, which every engine's compiler understands."""

    def __init__(self, folder: str) -> None:
        """Load the checkpoint in float32."""
        super().__init__()
        self.model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        self.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits, one row a text."""
        bias = (1.0 - attention_mask[:, None, None, :].float()) * -1e4
        bias = bias.expand(-1, -1, input_ids.shape[1], -1)
        return self.model(input_ids=input_ids, attention_mask=bias, token_type_ids=torch.zeros_like(input_ids)).logits


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch to trace with, of which one text is shorter than the other."""
    mask = torch.ones(2, 16, dtype=torch.long)
    mask[1, 8:] = 0
    return torch.full_like(mask, 5), mask
