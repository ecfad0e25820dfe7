"""Reads the small JSON files of a model folder in Hugging Face format. Knows file names, nothing of what they mean."""

import json
from pathlib import Path
from typing import Any

from backend.errors import StartError


def read_json(path: Path, required: bool = False) -> dict[str, Any]:
    """The object in ``path``; empty when absent and not ``required``. Raises ``StartError`` naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise StartError(f"{path} is missing", code="file_missing", param=path.name) from None
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise StartError(f"{path} cannot be read: {error}", code="bad_file", param=path.name) from error
    if not isinstance(value, dict):
        raise StartError(f"{path} must hold a JSON object", code="bad_file", param=path.name)
    return value
