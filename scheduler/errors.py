"""What a caller of the scheduler can do wrong, and what must never happen."""


class SchedulerError(Exception):
    """``plan`` and ``commit`` were not called in turn, a result does not belong to its plan, or a count is wrong."""
