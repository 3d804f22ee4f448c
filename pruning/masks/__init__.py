"""Which weights and structures are kept."""
