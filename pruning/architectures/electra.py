"""ELECTRA's discriminator (Clark et al., 2020): BERT's layers over embeddings that may be narrower than they."""

from pruning.architectures.base import Architecture
from pruning.architectures.bert import EMBEDDINGS, LAYER_SLOTS, SIZES

ELECTRA = Architecture(
    name="ELECTRA",
    prefix="electra",
    embeddings=EMBEDDINGS | {"embeddings.project": "embeddings_project"},
    layer="encoder.layer.{}",
    layer_slots=LAYER_SLOTS,
    pooled_head={"pooler": "classifier.dense", "classifier": "classifier.out_proj"},
    head_activation="gelu",
    sizes=SIZES | {"embedding": "embedding_size"},
)
