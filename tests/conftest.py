"""What holds for all tests: the same Hypothesis examples every time, no deadlines; Ctrl-C means Ctrl-C; no file of a
user's data folder is touched."""

import os
import signal
import tempfile

from hypothesis import HealthCheck, settings

settings.register_profile(
    "banyan", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("banyan")

# A shell that starts us in the background has SIGINT ignored, and every program that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Where programs that a test starts keep their data unless they are told otherwise; gone with this process.
_data = tempfile.TemporaryDirectory(prefix="banyan-tests-")
os.environ["XDG_DATA_HOME"] = _data.name
