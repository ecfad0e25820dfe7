"""Builds the C++ library beside this file: ``python -m kernels.cpu.build``, or ``build()`` from the package's hook.

One compilation per instruction set from the same sources, all in one file; which one runs is decided when it is loaded.
Needs a C++ compiler (``CXX``, else g++ or clang++); without one there is no library, and everything runs on torch's
operations, slower.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "native"
LIBRARY = HERE / "libbanyan_cpu.so"
STAMP = HERE / "libbanyan_cpu.made-from"
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Werror=vla"]

# Instruction set: floats per vector, and what the compiler must be told.
PORTABLE: dict[str, tuple[int, list[str]]] = {"portable": (4, [])}
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]
X86 = {
    "avx2": (8, ["-mavx2", "-mfma", "-mf16c"]),
    "avx512": (16, AVX512),
    "avx512vnni": (16, [*AVX512, "-mavx512vnni"]),
}


def compiler() -> str | None:
    """The C++ compiler to call, or None."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    return next((found for name in names if (found := shutil.which(name))), None)


def build(force: bool = False) -> Path | None:
    """The library, built when sources or compiler have changed; None (and a warning) when it cannot be built."""
    command = compiler()
    if command is None:
        _warn("no C++ compiler was found (Debian, Ubuntu: apt install g++)")
        return None
    stamp = _stamp(command)
    if not force and LIBRARY.exists() and STAMP.exists() and STAMP.read_text() == stamp:
        STAMP.touch()
        return LIBRARY
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = _compile(command, Path(folder))
            # In one step: a process that runs keeps the old file, one that starts never sees half a file.
            temporary = LIBRARY.with_suffix(f".{os.getpid()}")
            shutil.copyfile(made, temporary)
            temporary.replace(LIBRARY)
    except (subprocess.CalledProcessError, OSError) as error:
        _warn(getattr(error, "stderr", None) or str(error))
        return None
    STAMP.write_text(stamp)
    return LIBRARY


def _compile(command: str, folder: Path) -> Path:
    sets = PORTABLE | (X86 if platform.machine() in ("x86_64", "AMD64") else {})
    commands = {"library": [str(SOURCES / "library.cpp")]}
    for name, (lanes, flags) in sets.items():
        chosen = [f"-DBANYAN_ISA={name}", f"-DLANES={lanes}", *flags]
        commands[name] = [*chosen, str(SOURCES / "variant.cpp")]
        commands[f"{name}-sample"] = [*chosen, "-ffp-contract=off", str(SOURCES / "sample.cpp")]
    objects = [folder / f"{name}.o" for name in commands]

    def one(name: str) -> None:
        _run([command, *FLAGS, *commands[name], "-c", "-o", str(folder / f"{name}.o")])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, commands))
    made = folder / LIBRARY.name
    _run([command, "-shared", "-fopenmp", "-o", str(made), *map(str, objects)])
    return made


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _stamp(command: str) -> str:
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
    text = "".join(path.read_text() for path in sorted(SOURCES.iterdir()))
    return hashlib.sha256(f"{version}{FLAGS}{PORTABLE}{X86}{text}".encode()).hexdigest()


def _warn(why: str) -> None:
    sys.stderr.write(
        f"WARNING: the library of CPU kernels was not built: {why}\n"
        "Banyan runs without it on torch's own operations, several times slower on a CPU.\n"
    )


if __name__ == "__main__":
    sys.exit(build(force="--force" in sys.argv) is None)
