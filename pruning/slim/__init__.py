"""Our own BERT forward: packed tokens, a width of its own in every layer."""
