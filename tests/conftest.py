"""What holds for all tests: the same Hypothesis examples every time, no deadlines; Ctrl-C means Ctrl-C."""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "banyan", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("banyan")

# A shell that starts us in the background has SIGINT ignored, and every program that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
