"""The GPU path against its limits, its targets and other implementations; see ``__main__``."""
