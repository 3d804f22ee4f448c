"""Measure the engine on a GPU, side by side with transformers, eager and compiled, in one run.

    python scripts/measure_gpu.py [--compiled bert-base] [--shapes bert-base,bert-large]

Prints Markdown: sequences a second at three lengths and what share of the measured bfloat16 matrix rate they reach, for
even cuts of models with random weights; the time of one text; what capturing a level costs and what the live one
feels of it; products with 2:4 weights; and what half precision does to the accuracy of the embedded model.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.sparse import to_sparse_semi_structured
from transformers import BertConfig, BertForSequenceClassification

from pruning.cost import Shape, structured_cost
from pruning.encoder import BaseModel, load_base_model
from pruning.prediction import predict_logits
from pruning.random_model import SHAPES, even_mask, random_model, random_sequences, shape_named
from pruning.slim.bert import SlimBert
from pruning.slim.convert import build_slim, in_dtype, layer_widths, slim_layers
from pruning.slim.graphs import GraphedBert
from pruning.slim.packed import PackedBatch
from pruning.tasks.labels import encode_rows, read_rows
from pruning.tokenization import Encoded, TextTokenizer

EMBEDDED = Path(__file__).parent.parent / "embedded"
LENGTHS = (32, 128, 384)
LEVELS = (0.0, 0.5, 0.8)
BATCH_TOKENS, SERVED_TOKENS = 16384, 4096
"""Tokens of the batches measured, and the service's own budget."""
ONE_TEXT = 32
ROUNDS = 5
DEVICE = torch.device("cuda")

Answer = Callable[[Sequence[Encoded]], Tensor]


def cut(base: BaseModel, level: float) -> dict[str, Tensor]:
    """Return the layers of an even cut."""
    return slim_layers(base, even_mask(base.shape, level))


def on_gpu(base: BaseModel, layers: dict[str, Tensor], dtype: torch.dtype = torch.bfloat16) -> SlimBert:
    """Return the model of these layers."""
    return build_slim(base, in_dtype(layers, dtype)).to(DEVICE)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of one call over ``ROUNDS`` rounds of ``repeats``, after one to warm up."""
    readings = []
    for _ in range(ROUNDS + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        torch.cuda.synchronize()
        readings.append((time.perf_counter() - started) / repeats)
    return statistics.median(readings[1:])


def ceiling() -> float:
    """Return the bfloat16 multiply-accumulates a second of one large matrix of random numbers."""
    size = 8192
    left, right = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return size**3 / seconds(lambda: left @ right, 10)


def library_answers(shape: Shape, *, compiled: bool) -> Answer:
    """Return the library's model of the same shape, of random weights too, with its fused attention."""
    config = BertConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        intermediate_size=shape.ffn,
    )
    model = BertForSequenceClassification(config).to(DEVICE, torch.bfloat16).eval()
    forward = torch.compile(model, mode="reduce-overhead", dynamic=False) if compiled else model
    return lambda texts: forward(torch.tensor([text.ids for text in texts]).to(DEVICE)).logits.cpu()


@torch.inference_mode()
def throughput(base: BaseModel, top: float, *, compiled: bool) -> None:
    """Print sequences a second of each level and of the library's model, and the time of one text."""
    cuts = [cut(base, level) for level in LEVELS]
    models = [on_gpu(base, layers) for layers in cuts]
    widths = [layer_widths(layers, base.shape) for layers in cuts]
    answers: list[tuple[str, Answer, tuple[list[int], list[int]]]] = [
        (
            f"SparseDial, {level:g}",
            GraphedBert.capture(model, max_tokens=BATCH_TOKENS, max_length=base.max_length),
            kept,
        )
        for level, model, kept in zip(LEVELS, models, widths, strict=True)
    ]

    def by_kernel(texts: Sequence[Encoded]) -> Tensor:
        logits: Tensor = models[0](PackedBatch.from_sequences(texts, DEVICE)).cpu()
        return logits

    answers.append(("SparseDial, 0, without graphs", by_kernel, widths[0]))
    answers.append(("transformers, eager", library_answers(base.shape, compiled=False), widths[0]))
    if compiled:
        answers.append(("transformers, torch.compile", library_answers(base.shape, compiled=True), widths[0]))
    print(f"\n### {base.name}, bfloat16, batches of {BATCH_TOKENS:,} tokens: sequences/s (share of the matrix rate)\n")
    print("| engine, sparsity |" + "".join(f" {length} tokens |" for length in LENGTHS) + f" one text of {ONE_TEXT} |")
    print("| --- |" + " --- |" * (len(LENGTHS) + 1))
    for name, answer, (heads, neurons) in answers:
        cells = [name]
        for length in LENGTHS:
            macs = structured_cost(base.shape, heads, neurons, length=length).macs
            texts = random_sequences([length], BATCH_TOKENS // length, base.shape.vocabulary)
            rate = len(texts) / seconds(lambda answer=answer, texts=texts: answer(texts), 10)  # type: ignore[misc]
            cells.append(f"{rate:,.0f} ({rate * macs / top:.0%})")
        one = random_sequences([ONE_TEXT], 1, base.shape.vocabulary)
        cells.append(f"{1e3 * seconds(lambda answer=answer, one=one: answer(one), 50):.2f} ms")  # type: ignore[misc]
        print("| " + " | ".join(cells) + " |", flush=True)


@torch.inference_mode()
def swap(base: BaseModel) -> None:
    """Print what capturing a level takes, and how long one text takes the live level meanwhile and otherwise."""
    size = {"max_tokens": SERVED_TOKENS, "max_length": base.max_length}
    live = GraphedBert.capture(on_gpu(base, cut(base, 0.0)), **size)
    layers = cut(base, 0.5)
    text = random_sequences([ONE_TEXT], 1, base.shape.vocabulary)
    took: list[float] = []

    @torch.inference_mode()
    def load() -> None:
        started = time.perf_counter()
        GraphedBert.capture(on_gpu(base, layers), **size)(text)
        took.append(time.perf_counter() - started)

    def one_text() -> float:
        started = time.perf_counter()
        live(text)
        return 1e3 * (time.perf_counter() - started)

    quiet, meanwhile = [one_text() for _ in range(1000)], []
    with ThreadPoolExecutor(1) as loader:
        for _ in range(3):
            loading = loader.submit(load)
            while not loading.done():
                meanwhile.append(one_text())
            loading.result()
    before, during = (statistics.quantiles(values, n=100)[-1] for values in (quiet, meanwhile))
    print(
        f"\n{base.name}: a level of 0.5 goes to the device, is captured for batches of up to {SERVED_TOKENS:,} "
        f"tokens and answers its first text in {statistics.median(took):.2f} s (median of 3); "
        f"p99 of one text by the live level: {before:.2f} ms, meanwhile {during:.2f} ms"
    )


@torch.inference_mode()
def semi_structured() -> None:
    """Print products with 2:4 weights against dense ones: called from Python, and replayed from a graph."""
    print("\n### 2:4 weights, bfloat16: time of dense / time of 2:4\n")
    print("| rows | matrix | called | in a graph |\n| --- | --- | --- | --- |")
    for rows in (512, SERVED_TOKENS, BATCH_TOKENS):
        for inputs, outputs in ((768, 3072), (3072, 768), (1024, 4096)):
            weight = torch.randn(outputs, inputs, device=DEVICE, dtype=torch.bfloat16)
            kept = (weight.view(-1, 4).abs().argsort(1).argsort(1) >= 2).view(outputs, inputs)
            values = torch.randn(rows, inputs, device=DEVICE, dtype=torch.bfloat16)
            dense, sparse = Product(values, weight), Product(values, to_sparse_semi_structured(weight * kept))
            called = seconds(dense, 20) / seconds(sparse, 20)
            replayed = seconds(dense.graph().replay, 10) / seconds(sparse.graph().replay, 10)
            print(f"| {rows:,} | {inputs} x {outputs} | {called:.2f} | {replayed:.2f} |", flush=True)


class Product:
    """One linear layer."""

    def __init__(self, values: Tensor, weight: Tensor) -> None:
        """Keep the operands."""
        self._values, self._weight = values, weight
        self._bias = torch.zeros(weight.shape[0], device=DEVICE, dtype=torch.bfloat16)

    def __call__(self) -> Tensor:
        """Multiply."""
        return nn.functional.linear(self._values, self._weight, self._bias)

    def graph(self, times: int = 10) -> torch.cuda.CUDAGraph:
        """Capture several products."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(times):
                self()
        return graph


def accuracy() -> None:
    """Print the accuracy of the embedded model in each precision, on the rows that come with it."""
    base, tokenizer = load_base_model(EMBEDDED / "model"), TextTokenizer.load(EMBEDDED / "model")
    judged = encode_rows(read_rows(EMBEDDED / "rows" / "evaluation.jsonl", base.labels), tokenizer)
    print(f"\n### accuracy of the embedded model, dense, {len(judged)} rows\n")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        logits = predict_logits(on_gpu(base, cut(base, 0.0), dtype), judged.sequences, device=DEVICE)
        correct = int((logits.argmax(1) == judged.labels).sum())
        print(f"- {str(dtype).removeprefix('torch.')}: {correct} of {len(judged)} ({correct / len(judged):.2%})")


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiled", default="", help="shapes to measure torch.compile on: about a minute each")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="of %(default)s")
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    top = ceiling()
    print(f"bfloat16 matrices at best: {2e-12 * top:.0f} TFLOP/s")
    bases = [random_model(name, shape_named(name)) for name in options.shapes.split(",")]
    for base in bases:
        throughput(base, top, compiled=base.name in options.compiled.split(","))
    swap(bases[0])
    semi_structured()
    accuracy()


if __name__ == "__main__":
    main()
