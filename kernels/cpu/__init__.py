"""Batched torch for CPUs, where calling the reference per request would be too slow."""
