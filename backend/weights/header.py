"""A safetensors file's header, checked against the file's size before any tensor is touched. Knows no models.

Format: 8 bytes little-endian header length, that many bytes of JSON ({name: {dtype, shape, data_offsets}}), then the
data.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import StartError

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
MOST_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class Entry:
    """One tensor in a file. ``offset``: bytes from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a file by name. Raises ``StartError`` naming the file, and the tensor where one is to blame."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = _header_length(file.read(8), size, path)
            text = file.read(length)
    except OSError as error:
        raise damaged(path, f"cannot be read: {error.strerror or error}") from error
    try:
        header = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise damaged(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise damaged(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    return {name: _entry(name, fields, size - 8 - length, path) for name, fields in header.items()}


def damaged(path: Path, what: str) -> StartError:
    """An error about a weights file."""
    return StartError(f"{path.name}: {what}", code="bad_weights", param=str(path))


def _header_length(prefix: bytes, size: int, path: Path) -> int:
    if len(prefix) < 8:
        raise damaged(path, f"is not a safetensors file ({size} bytes)")
    length = int.from_bytes(prefix, "little")
    if length > MOST_HEADER_BYTES:
        raise damaged(path, f"is not a safetensors file (header length {length})")
    if 8 + length > size:
        raise damaged(path, f"is truncated: the header needs {8 + length} bytes, the file has {size}")
    return length


def _entry(name: str, fields: Any, data_bytes: int, path: Path) -> Entry:
    try:
        dtype, shape, (begin, end) = fields["dtype"], tuple(fields["shape"]), fields["data_offsets"]
        valid = all(type(n) is int and n >= 0 for n in (*shape, begin, end)) and begin <= end
    except (KeyError, TypeError, ValueError):
        valid = False
    if not valid:
        raise damaged(path, f"tensor {name} has a malformed header entry")
    if dtype not in ITEM_BYTES:
        raise damaged(path, f"tensor {name} has dtype {dtype!r} ({', '.join(ITEM_BYTES)} are supported)")
    if end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise damaged(path, f"tensor {name} has {end - begin} bytes, its shape {list(shape)} in {dtype} needs others")
    if end > data_bytes:
        raise damaged(path, f"is truncated: tensor {name} ends at byte {end} of the data, the file has {data_bytes}")
    return Entry(name, dtype, shape, begin, end - begin)
