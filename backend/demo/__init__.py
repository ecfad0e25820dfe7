"""The bundled demo model: synthetic conversations, tokenizer, training and evaluation."""
