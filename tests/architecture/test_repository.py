"""What no file of the repository contains: paths of one machine, addresses of registries; and how large it is."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Written in pieces, so that this file does not contain them.
FORBIDDEN = {
    "absolute path of a machine": re.compile(
        r"(?<![\w./~-])/(?:" + "|".join(["wo" + "rk", "ro" + "ot", "opt/wh" + "eels"]) + r")(?:/|\b(?![-\w]))"
    ),
    "home folder": re.compile(r"(?<![\w.])/(?:home|Users)/(?!eve\b|YOU\b)\w+/"),
    "package registry": re.compile(
        "|".join(["pypi" + r"\.org", "registry" + r"\.npmjs", "download" + r"\.pytorch", "pythonhosted" + r"\.org"])
    ),
}
NOT_TEXT = {".png", ".jpg", ".ico", ".woff2", ".safetensors", ".pt", ".gz", ".webp"}
# npm writes its registry's address into the lock file; without it `npm ci` would not install what was tested.
EXCEPT = {name: {"package registry"} for name in ("web/package-lock.json", "tests/conformance/node/package-lock.json")}
LARGEST_BYTES = 20 * 2**20


def repository_files() -> list[Path]:
    """Files that git knows or would add; skips where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is not a git checkout")
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def problems(name: str, text: str) -> list[str]:
    """What is wrong with a file's text: what, and the line."""
    found = []
    for what, pattern in FORBIDDEN.items():
        if what not in EXCEPT.get(name, ()):
            found += [f"{name}:{text.count(chr(10), 0, hit.start()) + 1}: {what}" for hit in pattern.finditer(text)]
    return found


def test_nothing_forbidden() -> None:
    found = []
    for path in repository_files():
        if path.suffix not in NOT_TEXT:
            found += problems(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8", errors="replace"))
    assert found == []


def test_repository_is_small() -> None:
    assert sum(path.stat().st_size for path in repository_files()) < 2 * LARGEST_BYTES
    assert [path for path in repository_files() if path.stat().st_size > LARGEST_BYTES] == []


@pytest.mark.parametrize(
    "text",
    [
        "see /" + "work/main",
        "cd /" + "root",
        "a\n/home" + "/bob/x",
        "https://pypi" + ".org/simple",
        "=/" + "opt/wheels",
    ],
)
def test_notices(text: str) -> None:
    assert problems("README.md", text)


@pytest.mark.parametrize("text", ["a/work/b", "/workers/", "network/root", "/tmp/x", "~/work/x"])
def test_lets_pass(text: str) -> None:
    assert problems("README.md", text) == []
