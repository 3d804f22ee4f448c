"""Tiny random models of every architecture with every head, made by the library itself, with tokenizers of each."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from pruning.architectures import ARCHITECTURES
from pruning.encoder import BaseModel
from pruning.heads import Head
from pruning.masks.structures import StructureMask
from pruning.tokenization import Encoded
from tests.conftest import WORDS, word_pieces

NAMES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "distilbert": "DistilBert",
    "electra": "Electra",
}
ENDINGS = {
    Head.LABEL: "ForSequenceClassification",
    Head.SCORE: "ForSequenceClassification",
    Head.TAGS: "ForTokenClassification",
    Head.SPAN: "ForQuestionAnswering",
}
LABELS: dict[Head, tuple[str, ...]] = {
    Head.LABEL: ("negative", "neutral", "positive"),
    Head.SCORE: ("score",),
    Head.TAGS: ("O", "B-FILM", "I-FILM", "B-FOOD", "I-FOOD"),
    Head.SPAN: ("start", "end"),
}
POSITIONS = 48
SIZES: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": POSITIONS},
    "electra": {"embedding_size": 24},
    "roberta": {"max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1, "pad_token_id": 1},
    "xlm-roberta": {"max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1, "pad_token_id": 1},
}


def write_model(folder: Path, kind: str, head: Head = Head.LABEL, *, seed: int = 0, **settings: Any) -> Path:
    """Write a seeded model (hidden 32, 2 layers, 4 heads, 64 neurons) of a ``model_type`` with its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = tokenizer_of(kind)
    usual = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    sizes = ({} if kind == "distilbert" else {**usual, "max_position_embeddings": POSITIONS}) | SIZES.get(kind, {})
    labels = dict(enumerate(LABELS[head]))
    config = getattr(transformers, f"{NAMES[kind]}Config")(
        vocab_size=tokenizer.get_vocab_size(),
        id2label=labels,
        label2id={label: index for index, label in labels.items()},
        **{**sizes, **settings},
    )
    model = getattr(transformers, NAMES[kind] + ENDINGS[head])(config)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def tokenizer_of(kind: str) -> Tokenizer:
    """Return a tokenizer of the kind that an architecture's checkpoints come with."""
    if kind == "roberta":
        return byte_level_pieces()
    return unigram_pieces() if kind == "xlm-roberta" else word_pieces()


def byte_level_pieces() -> Tokenizer:
    """Return a byte-level BPE that learnt the words of the tests; nothing is unknown to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def unigram_pieces() -> Tokenizer:
    """Return a sentencepiece unigram of the words of the tests and their letters."""
    letters = sorted({letter for word in WORDS for letter in word} | {",", ".", "!"})
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(f"▁{word}", -2.0) for word in WORDS] + [(letter, -6.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([AddedToken(piece) for piece in ("<s>", "<pad>", "</s>", "<unk>")])
    return tokenizer


def library_model(base: BaseModel) -> nn.Module:
    """Return the library's own model of the same folder, in eval mode."""
    name = transformers.AutoConfig.from_pretrained(base.path).architectures[0]
    model: nn.Module = getattr(transformers, name).from_pretrained(base.path).eval()
    return model


def library_outputs(
    base: BaseModel, sequences: Sequence[Encoded], mask: StructureMask | None = None, model: nn.Module | None = None
) -> Tensor:
    """Return what the library answers, one sequence at a time: [B, labels], or [T, labels] of a token head.

    With ``mask``, queries and what goes into every output projection are multiplied by it there; ``model`` is one
    loaded before.
    """
    model = model or library_model(base)
    if mask is not None:
        _mask_inputs(model, base, mask)
    answers = []
    for sequence in sequences:
        inputs = {"input_ids": torch.tensor([sequence.ids])}
        if base.shape.token_types > 1:
            inputs["token_type_ids"] = torch.tensor([sequence.type_ids])
        out = model(**inputs)
        if base.shape.head is Head.SPAN:
            answers.append(torch.stack([out.start_logits[0], out.end_logits[0]], dim=1))
        else:
            answers.append(out.logits if base.shape.head.pooled else out.logits[0])
    return torch.cat(answers)


def _mask_inputs(model: nn.Module, base: BaseModel, mask: StructureMask) -> None:
    architecture = ARCHITECTURES[model.config.model_type]  # type: ignore[union-attr, index]
    for layer in range(base.shape.num_layers):
        within = f"{architecture.prefix}.{architecture.layer.format(layer)}"
        queries_W, values_W = torch.zeros(2, base.shape.hidden, dtype=torch.bool)
        queries, values = mask.kept_dims(layer, base.shape.head_dim)
        queries_W[queries], values_W[values] = True, True
        query = model.get_submodule(f"{within}.{architecture.layer_slots['query']}")
        query.register_forward_hook(lambda _, __, output, kept=queries_W: output * kept)
        for slot, kept in (("attention_output", values_W), ("ffn_out", mask.neurons_LF[layer])):
            projection = model.get_submodule(f"{within}.{architecture.layer_slots[slot]}")
            projection.register_forward_pre_hook(lambda _, inputs, kept=kept: (inputs[0] * kept,))


def write_task_rows(path: Path, head: Head, count: int, *, seed: int = 0) -> Path:
    """Write ``count`` rows of random words for a head, as JSON Lines."""
    random = Random(seed)
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(count):
            words = random.choices(WORDS, k=random.randint(3, 14))
            stream.write(json.dumps(_row(head, words, random)) + "\n")
    return path


def _row(head: Head, words: list[str], random: Random) -> dict[str, Any]:
    text = " ".join(words)
    if head is Head.TAGS:
        return {"tokens": words, "tags": random.choices(LABELS[head], k=len(words))}
    if head is Head.SPAN:
        first = random.randrange(len(words))
        answer, start = " ".join(words[first : first + 2]), len(" ".join([*words[:first], ""]))
        answers = {"text": [answer], "answer_start": [start]}
        return {"question": random.choice(WORDS), "context": text, "answers": answers}
    pair = " ".join(random.choices(WORDS, k=3))
    if head is Head.SCORE:
        return {"text": text, "text_pair": pair, "score": round(random.uniform(0, 5), 2)}
    return {"text": text, "text_pair": pair, "label": random.choice(LABELS[head])}
