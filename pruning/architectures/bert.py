"""BERT (Devlin et al., 2019)."""

from pruning.architectures.base import Architecture

EMBEDDINGS = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
}
LAYER_SLOTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
SIZES = {
    "hidden": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "vocabulary": "vocab_size",
    "positions": "max_position_embeddings",
    "token_types": "type_vocab_size",
}

BERT = Architecture(
    name="BERT",
    prefix="bert",
    embeddings=EMBEDDINGS,
    layer="encoder.layer.{}",
    layer_slots=LAYER_SLOTS,
    pooled_head={"pooler": "bert.pooler.dense", "classifier": "classifier"},
    head_activation="tanh",
    sizes=SIZES,
)
