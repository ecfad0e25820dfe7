"""Build hook: builds the web UI with npm and puts it into the wheel as ``web/dist``; editable installs do without.

Knows npm's two commands and where the UI's build lies; what is built is the business of web/.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MISSING_NPM = (
    "building Banyan needs Node.js 20.19 or newer and its npm, to build the web UI (on Debian or Ubuntu: "
    "apt install nodejs npm). An editable install (pip install -e .) does without."
)


class WebBuild(BuildHookInterface):
    """Runs before a wheel is packed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """``version``: ``standard`` or ``editable``; ``build_data['force_include']``: path to path in the wheel."""
        if version == "editable":
            return
        web = Path(self.root) / "web"
        dist = web / "dist"
        if (web / "package.json").is_file():
            self._build(web)
        if not (dist / "index.html").is_file():
            raise RuntimeError(f"the web UI was not built: {dist}/index.html is missing")
        # Only what runs: the package itself and the build, none of the sources.
        build_data["force_include"] |= {str(web / "__init__.py"): "web/__init__.py", str(dist): "web/dist"}

    def _build(self, web: Path) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError(MISSING_NPM)
        for step in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
            done = subprocess.run([npm, *step], cwd=web, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"npm {' '.join(step)} failed in web/:\n{done.stdout}{done.stderr}")
