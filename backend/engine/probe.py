"""What an engine would find on this machine, as JSON on standard output: ``python -m backend.engine.probe [FOLDER]``.

A process of its own, so that whoever asks need not load torch, and a driver that crashes takes nobody with it.
"""

import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from backend.errors import StartError
from backend.weights.dtype import choose_dtype
from backend.weights.load import read_model_config
from backend.weights.memory import available_bytes
from kernels.cpu.library import available
from kernels.gpu import installed


def probe(folder: Path | None, dtype: str) -> dict[str, Any]:
    """Versions, device, free memory, which kernels there are; of a checkpoint in ``folder`` its size in memory, or what
    is wrong with it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "free_bytes": available_bytes(device),
        "cpu_library": available(),
        "triton": installed(),
        "cuda": device.type == "cuda",
    }
    if folder is not None:
        try:
            config = read_model_config(folder)
            run = choose_dtype(dtype, config.dtype, device)
            found["model"] = {
                "architecture": config.architecture,
                "parameters": config.parameters,
                "bytes": config.parameters * run.itemsize,
                "dtype": str(run).removeprefix("torch."),
                "weights": sorted(path.name for path in folder.glob("*.safetensors")),
            }
        except StartError as error:
            found["problem"] = error.message
    return found


if __name__ == "__main__":
    print(json.dumps(probe(Path(sys.argv[1]) if len(sys.argv) > 1 else None, (sys.argv[2:] or ["auto"])[0])))
