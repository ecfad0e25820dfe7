"""Hypothesis for all tests: the same examples every time, no deadlines."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "banyan", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("banyan")
