"""The smallest models and rows that can break a law: built in memory, seeded, nothing downloaded."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification

GOOD = ["good", "fine", "liked", "warm"]
BAD = ["bad", "dull", "hated", "cold"]
NEUTRAL = ["a", "the", "film", "was", "not", "very", "and", "but", "it", "food", "i", "we"]
WORDS = NEUTRAL + GOOD + BAD
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "##ly", ".", ",", "!"]


def write_tiny_model(folder: Path, *, seed: int = 0, layers: int = 2, positions: int = 48) -> Path:
    """Write a seeded BERT classifier (hidden 32, 4 heads, 64 neurons) with its tokenizer; return its folder."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions,
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )
    model = BertForSequenceClassification(config)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    word_pieces().save(str(folder / "tokenizer.json"))
    return folder


def word_pieces() -> Tokenizer:
    """Return BERT's kind of tokenizer over ``PIECES``."""
    tokenizer = Tokenizer(WordPiece({piece: index for index, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def write_rows(path: Path, count: int, *, seed: int) -> Path:
    """Write ``count`` labelled rows of random words, the label told by good and bad ones, as JSON Lines."""
    generator = torch.Generator().manual_seed(seed)

    def chosen(words: list[str], number: int) -> list[str]:
        return [words[int(i)] for i in torch.randint(0, len(words), (number,), generator=generator)]

    with path.open("w", encoding="utf-8") as stream:
        for index in range(count):
            telling, label = ((BAD, "negative"), (GOOD, "positive"))[index % 2]
            words = chosen(NEUTRAL, int(torch.randint(1, 12, (1,), generator=generator))) + chosen(telling, 2)
            order = torch.randperm(len(words), generator=generator)
            stream.write(json.dumps({"text": " ".join(words[int(i)] for i in order), "label": label}) + "\n")
    return path


def train_tiny_model(folder: Path, rows: Path, *, steps: int = 60) -> Path:
    """Fine-tune the model in ``folder`` on ``rows`` in place, so that cuts of it have something to lose."""
    model = BertForSequenceClassification.from_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=0)
    records = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    encodings = tokenizer.encode_batch([record["text"] for record in records])
    ids = torch.tensor([encoding.ids for encoding in encodings])
    mask = torch.tensor([encoding.attention_mask for encoding in encodings])
    labels = torch.tensor([("negative", "positive").index(record["label"]) for record in records])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(steps):
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT classifier on disk."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Forty calibration rows and thirty evaluation rows."""
    folder = tmp_path_factory.mktemp("rows")
    return write_rows(folder / "train.jsonl", 40, seed=1), write_rows(folder / "eval.jsonl", 30, seed=2)
