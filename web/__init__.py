"""The web UI: TypeScript below ``src/``, built by npm into ``dist/``.

Knows where its built assets are. Does not know who serves them, nor how they are built.
"""

from pathlib import Path


def dist() -> Path | None:
    """The folder of built assets (with ``index.html``), or None where nobody has run ``npm run build``."""
    folder = Path(__file__).resolve().parent / "dist"
    return folder if (folder / "index.html").is_file() else None
