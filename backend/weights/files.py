"""Which files of a checkpoint folder hold which tensors: a single file, or shards with an index. Opens headers only."""

import json
from pathlib import Path
from typing import Any

from backend.errors import StartError
from backend.weights.header import Entry, damaged, read_header

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ``StartError`` naming the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StartError(f"{path.name} is missing in {path.parent}", code="bad_checkpoint", param=str(path)) from error
    except OSError as error:
        raise StartError(
            f"{path.name} cannot be read: {error.strerror}", code="bad_checkpoint", param=str(path)
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise StartError(f"{path.name} is not valid JSON: {error}", code="bad_checkpoint", param=str(path)) from error
    if not isinstance(content, dict):
        raise StartError(f"{path.name} is not a JSON object", code="bad_checkpoint", param=str(path))
    return content


def locate(folder: Path) -> dict[str, tuple[Path, Entry]]:
    """Every tensor of the checkpoint: its file and its header entry, in the order of the files' bytes."""
    if (folder / INDEX).exists():
        found = _sharded(folder)
    elif (folder / SINGLE).exists():
        found = {name: (folder / SINGLE, entry) for name, entry in read_header(folder / SINGLE).items()}
    else:
        raise StartError(
            f"{folder} has no weights: neither {SINGLE} nor {INDEX} (other formats are not read)",
            code="bad_checkpoint",
            param=str(folder),
        )
    return dict(sorted(found.items(), key=lambda item: (item[1][0].name, item[1][1].offset)))


def _sharded(folder: Path) -> dict[str, tuple[Path, Entry]]:
    index = folder / INDEX
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise damaged(index, "weight_map is not an object of file names")
    headers = {name: read_header(_shard(folder, name)) for name in sorted(set(places.values()))}
    for tensor, name in places.items():
        if tensor not in headers[name]:
            raise damaged(folder / name, f"tensor {tensor} is missing, which {INDEX} says is here")
    return {tensor: (folder / name, headers[name][tensor]) for tensor, name in places.items()}


def _shard(folder: Path, name: str) -> Path:
    """A shard's path. The name must be plain: links are followed (the hub's cache is made of them), paths are not."""
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise damaged(folder / INDEX, f"file name {name!r} leads out of the folder")
    if not (folder / name).is_file():
        raise StartError(f"{name} is missing in {folder}", code="bad_checkpoint", param=str(folder / name))
    return folder / name
