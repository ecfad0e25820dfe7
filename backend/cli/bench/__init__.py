"""``banyan bench``: a load generator for our WebSocket and for any OpenAI-compatible chat endpoint."""
