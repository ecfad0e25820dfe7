"""The built web UI, or a page that says how to build it. Knows files and headers, not what is in them."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUILT_UI = Path(__file__).resolve().parents[2] / "web" / "dist"

_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Banyan</title>
<h1>Banyan is running</h1>
<p>The web UI has not been built. In the checkout: <code>npm --prefix web ci</code>, then
<code>npm --prefix web run build</code>, or start with <code>make serve</code>. The API:
<a href="/v1/models">/v1/models</a>.</p></html>"""


def open_paths(folder: Path = BUILT_UI) -> frozenset[str]:
    """The paths that anybody may read: those of the files in ``folder``, and the page itself."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return frozenset({"/", *(f"/{name}" for name in files)})


def web_ui(folder: Path = BUILT_UI) -> ASGIApp:
    """Serves ``folder``; looked at once, when the app is made."""
    if not (folder / "index.html").is_file():
        return _with_headers(HTMLResponse(_NOT_BUILT))
    return _with_headers(StaticFiles(directory=folder, html=True))


def _with_headers(app: ASGIApp) -> ASGIApp:
    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise HTTPException(404)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                hashed = scope["path"].startswith("/assets/") and message["status"] == 200
                # the build puts a hash of its content into the name of every asset
                cache = b"public, max-age=31536000, immutable" if hashed else b"no-cache"
                kept = [pair for pair in message["headers"] if pair[0] != b"cache-control"]
                message["headers"] = [*kept, *_HEADERS, (b"cache-control", cache)]
            await send(message)

        await app(scope, receive, send_with_headers)

    return wrapped
