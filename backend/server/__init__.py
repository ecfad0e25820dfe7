"""OpenAI's Responses over WebSocket and its HTTP beside it. Knows the engine only as an ``EngineClient``."""
