"""Checkpoints in Hugging Face format: reading, checking, and placing their tensors."""
