"""Numerical operations: one public signature each, a torch reference, faster paths beside it."""
