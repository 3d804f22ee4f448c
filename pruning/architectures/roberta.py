"""RoBERTa (Liu et al., 2019), and XLM-RoBERTa (Conneau et al., 2020), which differs in vocabulary and training alone.

Layers are BERT's. Positions begin after the padding token's, and the head has a matrix of its own where BERT has the
pooler. A padding token spelt out in a text is a token like any other here; the library gives it no position.
"""

from pruning.architectures.base import Architecture
from pruning.architectures.bert import EMBEDDINGS, LAYER_SLOTS, SIZES

ROBERTA = Architecture(
    name="RoBERTa",
    prefix="roberta",
    embeddings=EMBEDDINGS,
    layer="encoder.layer.{}",
    layer_slots=LAYER_SLOTS,
    pooled_head={"pooler": "classifier.dense", "classifier": "classifier.out_proj"},
    head_activation="tanh",
    sizes=SIZES,
    positions_follow_padding=True,
)
