"""Who gives way when pages run short. The seam for fairness between tenants.

Pages go to the older request: a running one loses them only to somebody who came before it. So the oldest always
moves on, and whatever fits alone comes to its end.
"""

from scheduler.request import Request


def choose_victim(running: list[Request], position: int) -> Request | None:
    """The youngest of ``running`` (in order of arrival) behind ``position``, or None."""
    return running[-1] if len(running) > position + 1 else None
