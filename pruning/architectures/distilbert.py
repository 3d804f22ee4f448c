"""DistilBERT (Sanh et al., 2019): BERT's layers under other names, without token types and without a pooler."""

from pruning.architectures.base import Architecture

DISTILBERT = Architecture(
    name="DistilBERT",
    prefix="distilbert",
    embeddings={
        "embeddings.word": "embeddings.word_embeddings",
        "embeddings.position": "embeddings.position_embeddings",
        "embeddings.norm": "embeddings.LayerNorm",
    },
    layer="transformer.layer.{}",
    layer_slots={
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention_output": "attention.out_lin",
        "attention_norm": "sa_layer_norm",
        "ffn_in": "ffn.lin1",
        "ffn_out": "ffn.lin2",
        "ffn_norm": "output_layer_norm",
    },
    pooled_head={"pooler": "pre_classifier", "classifier": "classifier"},
    head_activation="relu",
    sizes={
        "hidden": "dim",
        "num_layers": "n_layers",
        "num_heads": "n_heads",
        "ffn": "hidden_dim",
        "vocabulary": "vocab_size",
        "positions": "max_position_embeddings",
    },
    activation="activation",
    norm_eps=None,
)
