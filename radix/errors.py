"""What can go wrong in the cache: a caller's mistake, or a broken invariant. Too few pages is a return value."""


class CacheError(Exception):
    """Base of everything that ``radix`` raises."""


class LeaseError(CacheError):
    """A lease is used after its release, or told what cannot be (fewer tokens than before, more than fit)."""


class PinError(CacheError):
    """A pin that cannot be had: too large for the budget or the quota, or unknown."""


class InvariantError(CacheError):
    """The cache is in a state that must never occur; the message names the page, node or counter."""
