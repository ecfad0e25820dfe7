"""Who may ask for what: tenants, keys, prompts, limits, usage, audit and stored conversations, and their database."""
