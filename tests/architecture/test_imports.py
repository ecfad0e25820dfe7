"""Import arrows point down. Late and type-only imports count, and a submodule in ``from package import submodule``."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("backend", "radix", "scheduler", "kernels", "web", "tests", "benchmarks")
TENSORS = {"torch", "triton"}
PURE_OURS_FORBIDDEN = TENSORS | {"numpy"}

# What a package may import of ours (itself is always allowed), and which third-party modules it never imports.
# The longest prefix of a module's name decides.
ALLOWED: dict[str, set[str]] = {
    "radix": set(),
    "scheduler": {"radix"},
    "kernels": set(),
    "backend.errors": set(),
    "backend.version": set(),
    "backend.config": {"backend.errors"},
    "backend.models": {"kernels", "backend.errors"},
    "backend.weights": {"backend.models", "kernels", "backend.errors"},
    "backend.text": {"backend.errors", "backend.engine.client", "backend.engine.messages"},
    "backend.tenants": {"backend.errors"},
    "backend.demo": {"backend.errors"},
    "backend.engine": {
        "scheduler",
        "radix",
        "kernels",
        "backend.models",
        "backend.weights",
        "backend.errors",
        "backend",
    },
    "backend.engine.client": {"backend.engine.event_stream", "backend.engine.messages", "backend.errors"},
    "backend.engine.event_stream": {"backend.engine.messages"},
    "backend.engine.messages": {
        "scheduler.plan",
        "scheduler.load",
        "scheduler.lanes",
        "radix.pins",
        "radix.snapshot",
        "radix.stats",
    },
    "backend.engine.process_client": {
        "backend.engine.client",
        "backend.engine.event_stream",
        "backend.engine.messages",
        "backend.engine.options",
        "backend.engine.spawn",
        "backend.engine.wire",
        "backend.errors",
    },
    "backend.engine.spawn": {"backend.engine.options", "backend.engine.wire", "backend"},
    "backend.engine.supervised": {
        "backend.engine.client",
        "backend.engine.messages",
        "backend.engine.process_client",
        "backend.errors",
    },
    "backend.server": {
        "backend.engine.client",
        "backend.engine.event_stream",
        "backend.engine.messages",
        "backend.text",
        "backend.tenants",
        "backend.errors",
        "backend.version",
        "scheduler.plan",
        "backend",
    },
    "backend.cli": {
        "backend.config",
        "backend.version",
        "backend.errors",
        "backend.server",
        "backend.tenants",
        "backend.engine.client",
        "backend.engine.messages",
        "backend.engine.options",
        "backend.engine.process_client",
        "backend.engine.spawn",
        "backend.engine.supervised",
        "backend",
    },
    "backend.cli.simulate": {"scheduler", "backend.errors", "backend.version"},
    "backend": set(),
}
NEVER: dict[str, set[str]] = {
    "radix": PURE_OURS_FORBIDDEN | {"time"},
    "scheduler": PURE_OURS_FORBIDDEN | {"time"},
    "kernels": {"msgspec", "starlette"},
    "backend.text": TENSORS,
    "backend.tenants": TENSORS | {"starlette", "asyncio"},
    "backend.server": TENSORS,
    "backend.cli": TENSORS,
    "backend.config": TENSORS,
    "backend.errors": TENSORS,
    "backend.models": {"starlette", "uvicorn", "websockets"},
    "backend.weights": {"starlette", "uvicorn", "websockets"},
    "backend.engine": {"starlette", "uvicorn", "websockets", "tokenizers", "jinja2"},
    "backend.engine.client": TENSORS,
    "backend.engine.event_stream": TENSORS,
    "backend.engine.messages": TENSORS,
    "backend.engine.process_client": TENSORS,
    "backend.engine.spawn": TENSORS,
    "backend.engine.supervised": TENSORS,
}
TRITON_ONLY_IN = "kernels.triton"


def module_name(path: Path, root: Path) -> str:
    """Dotted name of a file below ``root``."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(source: str, module: str, is_package: bool, modules: set[str]) -> Iterator[str]:
    """Every module that ``source`` imports anywhere in it, as absolute names."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                yield deeper if deeper in modules else base


def below(name: str, prefix: str) -> bool:
    """Whether ``name`` is ``prefix`` or inside it."""
    return name == prefix or name.startswith(prefix + ".")


def deciding(table: dict[str, set[str]], module: str) -> str | None:
    """The longest prefix of ``module`` in the table."""
    return max((prefix for prefix in table if below(module, prefix)), key=len, default=None)


def allowed(module: str, imported: str) -> bool:
    """Whether the table lets ``module`` import ``imported``, which is one of ours."""
    rule = deciding(ALLOWED, module)
    if rule is None:
        return False
    if rule != "backend" and below(imported, rule):
        return True
    # "backend" alone is the package's own file, not everything in it
    return any(imported == name if name == "backend" else below(imported, name) for name in ALLOWED[rule])


def never(module: str) -> set[str]:
    """Third-party modules that ``module`` must not import: those of each prefix of its name."""
    forbidden = set().union(*(names for prefix, names in NEVER.items() if below(module, prefix)))
    return forbidden | (set() if below(module, TRITON_ONLY_IN) else {"triton"})


def violations(root: Path) -> list[str]:
    """Each forbidden import below ``root``, in words."""
    files = {module_name(path, root): path for top in OURS[:4] for path in sorted((root / top).rglob("*.py"))}
    modules = set(files)
    found = []
    for module, path in files.items():
        for imported in imported_names(path.read_text(encoding="utf-8"), module, path.name == "__init__.py", modules):
            ours = imported.split(".")[0] in OURS
            if (ours and not allowed(module, imported)) or (not ours and imported.split(".")[0] in never(module)):
                found.append(f"{module} imports {imported}")
    return found


def test_arrows_point_down() -> None:
    assert violations(ROOT) == []


def test_packages_are_there() -> None:
    """The walk sees the packages that it is meant to hold apart."""
    for package in ("radix", "scheduler", "kernels", "backend"):
        assert (ROOT / package / "__init__.py").is_file()


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("radix/tree.py", "def f():\n    import torch\n", ["radix.tree imports torch"]),
        ("radix/tree.py", "from scheduler.plan import Chunk\n", ["radix.tree imports scheduler.plan"]),
        ("radix/tree.py", "from . import pool\n", []),
        ("scheduler/cost.py", "import time\n", ["scheduler.cost imports time"]),
        ("scheduler/cost.py", "from radix.cache import PrefixCache\n", []),
        ("kernels/attention.py", "import triton\n", ["kernels.attention imports triton"]),
        ("kernels/triton/attention.py", "import triton.language as tl\n", []),
        (
            "backend/text/template.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from backend.server import app\n",
            ["backend.text.template imports backend.server"],
        ),
        ("backend/server/app.py", "import torch.nn\n", ["backend.server.app imports torch.nn"]),
        (
            "backend/server/app.py",
            "from backend.engine import client, loop\n",
            ["backend.server.app imports backend.engine.loop"],
        ),
        ("backend/models/llama.py", "from scheduler import plan\n", ["backend.models.llama imports scheduler"]),
        ("backend/models/llama.py", "from backend import config\n", ["backend.models.llama imports backend.config"]),
        ("backend/unlisted.py", "from backend.cli import main\n", ["backend.unlisted imports backend.cli"]),
    ],
)
def test_notices(tmp_path: Path, file: str, source: str, expected: list[str]) -> None:
    """Each kind of wrong import is found, and the right ones are not."""
    for name in ("backend/engine/client.py", "backend/engine/loop.py", "backend/config.py", file):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / file).write_text(source)
    assert violations(tmp_path) == expected
