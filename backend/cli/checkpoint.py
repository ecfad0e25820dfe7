"""From what the user calls MODEL to a folder on disk: the bundled model, a folder, or a download from the hub.

Knows the hub's client library and its errors. Does not look into the checkpoint: loading it is the engine's business.
"""

import errno
import os
import re
from pathlib import Path
from typing import NamedTuple

import backend
from backend.errors import StartError

BUNDLED = Path(backend.__file__).parent / "demo" / "model"
BUNDLED_ID = "banyan-demo"
DEMO_PROMPTS = BUNDLED.parent / "businesses.json"
HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
# What a text model needs; other weight formats (.bin, .gguf, .onnx) are not fetched.
WANTED_FILES = ["*.safetensors", "*.json", "tokenizer.model", "chat_template.jinja"]


class Checkpoint(NamedTuple):
    """``folder`` holds config.json, weights and tokenizer; ``name`` is what clients call the model."""

    folder: Path
    name: str


def locate(model: str, data_dir: Path) -> Checkpoint:
    """Find the checkpoint, downloading it when ``model`` is a hub id. Raises ``StartError``."""
    if not model:
        return Checkpoint(_require_config(BUNDLED, "the bundled model"), BUNDLED_ID)
    folder = Path(model).expanduser()
    if folder.exists():
        return Checkpoint(_require_config(folder.resolve(), "MODEL"), folder.resolve().name)
    match = HUB_ID.fullmatch(model)
    if match is None or model.startswith(("./", "../")):
        raise StartError(
            f"MODEL {model!r}: there is no such folder, and it is not a hub id of the form org/name[@revision]",
            code="model_not_found",
            param="model",
        )
    return Checkpoint(_require_config(_download(match, data_dir), model), match["repository"])


def is_download(model: str) -> bool:
    """Whether ``model`` means one of the hub's, and no folder here."""
    return bool(model) and not Path(model).expanduser().exists() and HUB_ID.fullmatch(model) is not None


def _require_config(folder: Path, what: str) -> Path:
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "is not there"
    elif not (folder / "config.json").is_file():
        problem = "has no config.json: a folder in Hugging Face format is expected"
    else:
        return folder
    raise StartError(f"{what}: {folder} {problem}", code="model_not_found", param="model")


def download_folder(data_dir: Path) -> Path | None:
    """Our own data folder, or None (the hub library's cache) where its variables HF_HOME or HF_HUB_CACHE are set."""
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HF_HOME")
    return None if chosen else data_dir / "models"


def _download(match: re.Match[str], data_dir: Path) -> Path:
    repository, revision = match["repository"], match["revision"]
    import httpx2  # together 0.4 s to import: late, most starts need no hub
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(
            snapshot_download(
                repository, revision=revision, cache_dir=download_folder(data_dir), allow_patterns=WANTED_FILES
            )
        )
    except errors.GatedRepoError as error:
        message = (
            f"{repository} is gated: accept its terms on its page on the hub, "
            "then set HF_TOKEN to an access token of that account"
        )
        raise StartError(message, code="model_gated", param="model") from error
    except errors.RepositoryNotFoundError as error:
        message = f"the hub has no model {repository}, or it is private and HF_TOKEN gives no access to it"
        raise StartError(message, code="model_not_found", param="model") from error
    except errors.RevisionNotFoundError as error:
        raise StartError(f"{repository} has no revision {revision!r}", code="model_not_found", param="model") from error
    except errors.LocalEntryNotFoundError as error:
        reason = "the hub cannot be reached, and no complete copy was downloaded before"
        cause = f" ({type(error.__cause__).__name__}: {error.__cause__})" if error.__cause__ else ""
        raise StartError(f"{repository}: {reason}{cause}", code="hub_unreachable", param="model") from error
    except errors.HFValidationError as error:
        raise StartError(
            f"MODEL {repository!r} is not a valid hub id: {error}", code="model_not_found", param="model"
        ) from error
    except (OSError, httpx2.HTTPError) as error:
        raise disk_or_network_error(error, repository, data_dir) from error


def disk_or_network_error(error: Exception, repository: str, data_dir: Path) -> StartError:
    """What to say about a download that broke off."""
    folder = download_folder(data_dir) or "the hub library's cache"
    code = getattr(error, "errno", None)
    if code == errno.ENOSPC:
        return StartError(f"{repository}: no space left in {folder} (--data-dir)", code="no_space", param="data-dir")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StartError(f"{repository}: {folder} (--data-dir) is not writable", code="not_writable", param="data-dir")
    return StartError(f"{repository}: the download failed: {error}", code="download_failed", param="model")
