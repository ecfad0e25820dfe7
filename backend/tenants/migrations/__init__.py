"""Alembic's environment and the steps from an empty database to ``schema``."""
