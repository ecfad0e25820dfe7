"""From a checkpoint folder to a model that can run.

Each tensor is copied from the mapped file straight into its place in the fused weights, converted on the way, so the
peak is the model in the run dtype plus one tensor; nothing is allocated before the room for everything is known to be
there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from backend.errors import StartError
from backend.models.config import ModelConfig
from backend.models.decoder import Decoder
from backend.models.layers.parameter import Parameter
from backend.models.registry import read_config
from backend.weights.dtype import choose_dtype
from backend.weights.files import locate, read_json
from backend.weights.header import Entry, damaged
from backend.weights.memory import available_bytes
from kernels.cpu.library import computes

Progress = Callable[[str, int, int], None]
Located = dict[str, tuple[Path, Entry]]

# Written by older exporters, computed here: never read.
IGNORED_SUFFIXES = ("rotary_emb.inv_freq", ".masked_bias", ".attn.bias")


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights. ``weights_bytes``: what they take in memory."""

    model: Decoder
    config: ModelConfig
    dtype: torch.dtype
    weights_bytes: int


def load_checkpoint(
    folder: Path,
    dtype: str = "auto",
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    reserve_bytes: int = 0,
    weights: str = "auto",
) -> LoadedModel:
    """Read ``config.json`` and the safetensors of ``folder``.

    ``dtype`` as in ``choose_dtype``. ``progress("weights", done, total)`` counts bytes on disk. ``reserve_bytes`` must
    stay free beside the weights (for KV pages). ``weights``: ``auto``, or ``int8`` to round them to it once they are
    read (see ``kernels.linear.prepare``). Raises ``StartError``, naming file and tensor, for anything missing,
    superfluous, damaged, of another shape or not finite, and for too little memory.
    """
    device = torch.device(device)
    config = read_model_config(folder)
    run_dtype = choose_dtype(dtype, config.dtype, device)
    if weights == "int8" and not computes(run_dtype, device):
        raise StartError(
            f"int8 weights need the library of CPU kernels and float32 or bfloat16 beside them, not {run_dtype} on "
            f"{device.type}",
            param="weights",
        )
    located = locate(folder)
    need = config.parameters * run_dtype.itemsize
    _check_room(need, reserve_bytes, device)
    # Shapes first, on a device without memory: a wrong file is refused before gigabytes are allocated.
    _match(Decoder(config, run_dtype, torch.device("meta")), located, config)
    try:
        model = Decoder(config, run_dtype, device)
    except (RuntimeError, MemoryError) as error:
        raise _no_room(need, reserve_bytes, available_bytes(device)) from error
    _fill(list(_match(model, located, config)), progress or (lambda what, done, total: None))
    return LoadedModel(model, config, run_dtype, model.prepare(int8=weights == "int8"))


def read_model_config(folder: Path) -> ModelConfig:
    """The shape of the model in ``folder``."""
    if not folder.is_dir():
        raise StartError(f"{folder} is not a folder", code="bad_checkpoint", param=str(folder))
    return read_config(read_json(folder / "config.json"))


def _check_room(need: int, reserve: int, device: torch.device) -> None:
    free = available_bytes(device)
    if need + reserve > free:
        raise _no_room(need, reserve, free)


def _no_room(need: int, reserve: int, free: int) -> StartError:
    beside = f" and {reserve / 1e6:,.0f} MB beside them" if reserve else ""
    return StartError(
        f"no room in memory: the weights need {need / 1e6:,.0f} MB{beside}, {free / 1e6:,.0f} MB are available",
        code="no_memory",
    )


def _match(model: Decoder, located: Located, config: ModelConfig) -> Iterator[tuple[Path, Entry, Parameter]]:
    """Pair every parameter with its tensor on disk, in file order; checked both ways before the first is yielded."""
    parameters = {parameter.name: parameter for parameter in model.parameters()}
    for name, parameter in parameters.items():
        if name not in located:
            raise StartError(f"tensor {name} is missing in the weights", code="bad_weights", param=name)
        path, entry = located[name]
        expected = tuple(parameter.target.shape)
        if entry.shape != expected:
            raise damaged(path, f"tensor {name} has shape {list(entry.shape)}, config.json needs {list(expected)}")
    for name, (path, _) in located.items():
        if name not in parameters and not _ignorable(name, config):
            raise damaged(path, f"tensor {name} has no place in {config.architecture} as config.json describes it")
    return iter([(*located[name], parameters[name]) for name in located if name in parameters])


def _ignorable(name: str, config: ModelConfig) -> bool:
    return name.endswith(IGNORED_SUFFIXES) or (config.tied_embeddings and name == "lm_head.weight")


def _fill(matched: list[tuple[Path, Entry, Parameter]], progress: Progress) -> None:
    total = sum(entry.size_bytes for _, entry, _ in matched)
    done = 0
    progress("weights", 0, total)
    for path, group in groupby(matched, key=lambda item: item[0]):
        try:
            with safe_open(path, framework="pt") as file:
                for _, entry, parameter in group:
                    _copy(path, file.get_tensor(entry.name), parameter)
                    done += entry.size_bytes
                    progress("weights", done, total)
        except (SafetensorError, OSError) as error:
            raise damaged(path, f"cannot be read: {error}") from error


def _copy(path: Path, tensor: torch.Tensor, parameter: Parameter) -> None:
    parameter.target.copy_(tensor)
    if not bool(parameter.target.sum(dtype=torch.float32).isfinite()):
        # The sum of finite numbers may overflow; then the slow look decides.
        if bool(parameter.target.isfinite().all()):
            return
        cause = "" if not bool(tensor.isfinite().all()) else f" in {parameter.target.dtype}"
        raise damaged(path, f"tensor {parameter.name} has values that are not finite{cause}")
