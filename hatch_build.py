"""Build hook: compiles the library of CPU kernels, builds the web UI with npm, and puts both into the wheel.

An editable install compiles the library beside its sources and leaves the UI to whoever needs it. Knows npm's two
commands and where the builds lie; what is built is the business of kernels/cpu and web/.
"""

import importlib.util
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MISSING_NPM = (
    "building Banyan needs Node.js 20.19 or newer and its npm, to build the web UI (on Debian or Ubuntu: "
    "apt install nodejs npm). An editable install (pip install -e .) does without."
)


class Build(BuildHookInterface):
    """Runs before a wheel is packed or an editable install is made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """``version``: ``standard`` or ``editable``; ``build_data['force_include']``: path to path in the wheel."""
        library = self._compile()
        if version == "editable":
            return
        if library is not None:
            # The library knows no Python: one wheel for all of its versions, for this platform.
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
            build_data["force_include"][str(library)] = f"kernels/cpu/{library.name}"
        web = Path(self.root) / "web"
        dist = web / "dist"
        if (web / "package.json").is_file():
            self._build(web)
        if not (dist / "index.html").is_file():
            raise RuntimeError(f"the web UI was not built: {dist}/index.html is missing")
        # Only what runs: the package itself and the build, none of the sources.
        build_data["force_include"] |= {str(web / "__init__.py"): "web/__init__.py", str(dist): "web/dist"}

    def _compile(self) -> Path | None:
        """The library; None, after a warning, where it cannot be built. Its builder is loaded alone: ``kernels`` needs
        torch, which is not there while a wheel is built."""
        place = Path(self.root) / "kernels" / "cpu" / "build.py"
        found = importlib.util.spec_from_file_location("build_cpu_kernels", place)
        assert found is not None and found.loader is not None
        builder = importlib.util.module_from_spec(found)
        found.loader.exec_module(builder)
        made = builder.build()
        assert made is None or isinstance(made, Path)
        return made

    def _build(self, web: Path) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError(MISSING_NPM)
        for step in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
            done = subprocess.run([npm, *step], cwd=web, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"npm {' '.join(step)} failed in web/:\n{done.stdout}{done.stderr}")
