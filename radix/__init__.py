"""The prefix cache: which KV page holds which tokens. Pure Python; knows nothing of tensors, requests or time."""
