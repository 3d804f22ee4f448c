"""Score a BERT classifier once; cut it to any sparsity from the cached scores."""
