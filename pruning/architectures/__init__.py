"""The architectures: one file each, one row each in ``ARCHITECTURES``."""

from pruning.architectures.base import Architecture
from pruning.architectures.bert import BERT
from pruning.architectures.distilbert import DISTILBERT
from pruning.architectures.electra import ELECTRA
from pruning.architectures.roberta import ROBERTA

ARCHITECTURES: dict[str, Architecture] = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
}
"""``model_type`` of ``config.json`` -> architecture."""

__all__ = ["ARCHITECTURES", "Architecture"]
