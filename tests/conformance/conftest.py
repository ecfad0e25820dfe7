"""The same running server as in the server's own tests."""

from tests.server.conftest import folder, house, tokenizer

__all__ = ["folder", "house", "tokenizer"]
