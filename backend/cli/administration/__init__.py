"""Commands of the operator: tenants, keys, prompts, usage, audit, the database and the cache."""
