"""The Triton kernels run here in Triton's interpreter, on the CPU. What the interpreter cannot show (races, limits of
shared memory, instructions) is the business of the compile tests, which start a process of their own without it.

In the interpreter bf16 arithmetic is silently wrong (values are held as uint16): tests use fp32 and fp16.
"""

import importlib.util
import os

import pytest

# Read when a kernel is decorated, so it must be set before any kernel is imported.
os.environ["TRITON_INTERPRET"] = "1"

WITHOUT_TRITON = {"test_plan.py"}


class _Skipped(pytest.Module):
    """A test file that is not imported."""

    def collect(self):
        pytest.skip("triton is not installed", allow_module_level=True)


def pytest_configure(config):
    """The interpreter of Triton 3.6 turns arrays of one element into numbers in a way that numpy 2 warns of."""
    for message in ("Conversion of an array with ndim", "divide by zero encountered in log2"):
        config.addinivalue_line("filterwarnings", f"ignore:{message}")


def pytest_pycollect_makemodule(module_path, parent):
    """Skip each file that needs Triton where there is none."""
    if importlib.util.find_spec("triton") is None and module_path.name not in WITHOUT_TRITON:
        return _Skipped.from_parent(parent, path=module_path)
    return None
