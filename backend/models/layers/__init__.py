"""Parts that the families share; each owns its parameters and knows their names on disk."""
