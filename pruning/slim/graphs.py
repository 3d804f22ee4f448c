"""CUDA graphs of a SlimBert: one for each number of tokens, captured once and replayed for any batch that fits.

A small encoder is a hundred kernels of a few microseconds each; launching them one by one takes longer than they run.
A graph launches all of them at once, but its shapes are fixed: a batch is filled up with rows of no sequence to the
next size that was captured. Offsets and tokens are inputs, so that lengths may differ from batch to batch.

Letters: B sequences that a graph has room for, T tokens likewise, C labels.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pruning.slim.bert import SlimBert
from pruning.slim.packed import Integers, PackedBatch, TokenSequence, positions_of
from pruning.slim.spans import Spans

SMALLEST = 64
"""Tokens of the smallest graph."""
STEPS_FROM = 1024
STEPS = 4
"""Sizes between one power of two and the next, from that many tokens up: a fifth of the rows is waste at most. Below,
where launching takes longest, sizes are powers of two."""
SHORT = 128
TOKENS_PER_SHORT, TOKENS_PER_LONG = 8, 32
"""Each size has a graph for sequences up to ``SHORT`` tokens, with room for one for every 8 of its tokens, and one for
any, with room for one for every 32: attention spends time on sequences that could be there, each as long as any
could be. Batches of more sequences take a larger graph."""


def graph_sizes(max_tokens: int) -> list[int]:
    """Return the numbers of tokens that graphs are captured for, rising; the last holds ``max_tokens``."""
    sizes = [SMALLEST]
    while sizes[-1] < max_tokens:
        octave = 1 << (sizes[-1].bit_length() - 1)
        sizes.append(sizes[-1] + (octave // STEPS if octave >= STEPS_FROM else octave))
    return sizes


def graph_shapes(max_tokens: int, max_length: int) -> list[tuple[int, int, int]]:
    """Return (tokens, sequences, longest) of every graph, in the order in which they are tried."""
    shapes = []
    for tokens in graph_sizes(max_tokens):
        longest = min(tokens, max_length)
        shapes.append((tokens, tokens // TOKENS_PER_SHORT, min(SHORT, longest)))
        if longest > SHORT:
            shapes.append((tokens, tokens // TOKENS_PER_LONG, longest))
    return shapes


def inputs_of(sequences: Sequence[TokenSequence], tokens: int, rows: int) -> Integers:
    """Return the inputs of a graph for ``tokens`` tokens and ``rows`` sequences, one after the other.

    They are token ids [T], types [T], positions [T], and offsets [B + 1]: missing sequences are of no token, missing
    tokens are zeros behind the last sequence.

    Raises:
        ValueError: the sequences do not fit.
    """
    lengths = [len(sequence.ids) for sequence in sequences]
    used = sum(lengths)
    if used > tokens or len(lengths) > rows:
        raise ValueError(f"{len(lengths)} sequences of {used} tokens do not fit {rows} of {tokens}")
    inputs = np.zeros(3 * tokens + rows + 1, dtype=np.int64)
    inputs[:used] = np.fromiter(chain.from_iterable(sequence.ids for sequence in sequences), np.int64, used)
    if any(any(sequence.type_ids) for sequence in sequences):
        kinds = np.fromiter(chain.from_iterable(sequence.type_ids for sequence in sequences), np.int64, used)
        inputs[tokens : tokens + used] = kinds
    inputs[2 * tokens : 2 * tokens + used] = positions_of(lengths)
    offsets = inputs[3 * tokens :]
    offsets[1 : len(lengths) + 1] = np.cumsum(lengths)
    offsets[len(lengths) + 1 :] = used
    return inputs


@dataclass(frozen=True, slots=True, eq=False)
class Capture:
    """One graph with its inputs and outputs."""

    tokens: int
    rows: int
    longest: int
    graph: torch.cuda.CUDAGraph
    inputs: Tensor
    """On the device, as ``inputs_of`` lays them."""
    staged: Tensor
    """The same on the host, in pinned memory, so that the copy needs no other one."""
    logits_BC: Tensor

    @classmethod
    def of(cls, model: SlimBert, tokens: int, rows: int, longest: int, pool: Any, stream: torch.cuda.Stream) -> Self:
        """Capture the forward pass of up to ``tokens`` tokens in ``rows`` sequences, none beyond ``longest``."""
        inputs = torch.zeros(3 * tokens + rows + 1, dtype=torch.int64, device=model.classifier.weight.device)
        ids_T, type_ids_T, positions_T = inputs[: 3 * tokens].view(3, tokens)
        offsets_B1 = inputs[3 * tokens :]

        def forward() -> Tensor:
            spans = Spans(offsets_B1.int(), longest)
            # Where a sequence is missing, the offset may be one past the last token: any row will do.
            first_B = offsets_B1[:-1].clamp(max=tokens - 1)
            logits: Tensor = model(PackedBatch(ids_T, type_ids_T, positions_T, first_B, spans))
            return logits

        with torch.cuda.stream(stream):
            forward()  # libraries load and set up what they need: not while it is captured
            stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads go on answering with the live engine meanwhile: only this one's calls are captured.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            logits_BC = forward()
        staged = torch.empty_like(inputs, device="cpu").pin_memory()
        return cls(tokens, rows, longest, graph, inputs, staged, logits_BC)

    def holds(self, tokens: int, rows: int, longest: int) -> bool:
        """Tell whether a batch fits."""
        return tokens <= self.tokens and rows <= self.rows and longest <= self.longest

    def replay(self, sequences: Sequence[TokenSequence], answers: int) -> Tensor:
        """Return the first ``answers`` rows of logits, float32 on the CPU. Waits for the device."""
        self.staged.numpy()[:] = inputs_of(sequences, self.tokens, self.rows)
        self.inputs.copy_(self.staged, non_blocking=True)
        self.graph.replay()
        return self.logits_BC[:answers].float().cpu()


class GraphedBert:
    """A SlimBert on a GPU that replays graphs. They share their memory: threads that call at once wait their turn."""

    def __init__(self, model: SlimBert, captures: Sequence[Capture]) -> None:
        """Answer with ``captures``, smallest first; what fits none of them runs kernel by kernel."""
        self._model = model
        self._captures = captures
        self._turn = threading.Lock()

    @classmethod
    @torch.inference_mode()
    def capture(cls, model: SlimBert, *, max_tokens: int, max_length: int) -> Self:
        """Capture a graph for each size up to ``max_tokens``.

        The graphs of one model share a pool of memory, as they never run at the same time; no two models may share
        one, as one answers while the other is captured.

        Raises:
            torch.OutOfMemoryError: the device has no room for the intermediate values.
        """
        device = model.classifier.weight.device
        with torch.cuda.device(device):
            pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            captures = [  # the largest first, so that the others find room in what it took
                Capture.of(model, *size, pool, stream) for size in reversed(graph_shapes(max_tokens, max_length))
            ]
            torch.cuda.current_stream().wait_stream(stream)
        return cls(model, captures[::-1])

    @torch.inference_mode()
    def __call__(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Return logits [n, C], or [T, C] of a head that reads every token, float32 on the CPU, in the order given."""
        lengths = [len(sequence.ids) for sequence in sequences]
        size = sum(lengths), len(lengths), max(lengths)
        for capture in self._captures:
            if capture.holds(*size):
                with self._turn:
                    return capture.replay(sequences, answers=size[1] if self._model.head.pooled else size[0])
        device = self._model.classifier.weight.device
        logits: Tensor = self._model(PackedBatch.from_sequences(sequences, device)).float().cpu()
        return logits
