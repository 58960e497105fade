"""From chat messages to prompt tokens and block hashes, without a model's own vocabulary."""
