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

WORDS = "a the film was good bad fine dull not very and but it food i we liked hated warm cold".split()
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
    tokenizer = Tokenizer(WordPiece({piece: index for index, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_rows(path: Path, count: int, *, seed: int) -> Path:
    """Write ``count`` labelled rows of random words as JSON Lines."""
    generator = torch.Generator().manual_seed(seed)
    with path.open("w", encoding="utf-8") as stream:
        for index in range(count):
            length = int(torch.randint(2, 14, (1,), generator=generator))
            words = [WORDS[int(i)] for i in torch.randint(0, len(WORDS), (length,), generator=generator)]
            label = ("negative", "positive")[index % 2]
            stream.write(json.dumps({"text": " ".join(words), "label": label}) + "\n")
    return path


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT classifier on disk."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Forty calibration rows and thirty evaluation rows."""
    folder = tmp_path_factory.mktemp("rows")
    return write_rows(folder / "train.jsonl", 40, seed=1), write_rows(folder / "eval.jsonl", 30, seed=2)
