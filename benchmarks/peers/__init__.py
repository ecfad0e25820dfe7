"""Prefix caches of two peers, rebuilt from the description of their algorithms: our code, to measure against."""
