"""Text on one side, token ids on the other: tokenizer, chat template, decoding, stop strings, conversations."""
