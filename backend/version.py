"""Which release of Banyan this is."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """Version of the distribution; ``unknown`` in a checkout that is not installed."""
    try:
        return version("banyan-chat")
    except PackageNotFoundError:
        return "unknown"
