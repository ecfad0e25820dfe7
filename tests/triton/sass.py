"""Compile Triton kernels for a GPU that is not there, and read what the compiler made of them.

The compilers and disassemblers come with Triton's wheel. Must run without TRITON_INTERPRET, so tests start this in a
process of their own. Knows nothing of particular kernels.
"""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
# "        /*0110*/              @!P0 LDG.E.128 R4, ..." -> LDG; an instruction line starts with its address
_OPCODE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)", re.MULTILINE)


@dataclass(frozen=True)
class Compiled:
    """One compiled variant."""

    registers: int
    """Per thread."""
    stack: int
    """Bytes per thread; not 0 means that registers were spilled."""
    shared_bytes: int
    """Per program (static and dynamic)."""
    instructions: Counter[str]
    """How often each opcode stands in the machine code (static count), without its modifiers: ``HGMMA``, ``LDGSTS``."""
    sass: str
    ptx: str

    @property
    def spills(self) -> int:
        """Instructions on local memory."""
        return self.instructions["LDL"] + self.instructions["STL"]

    def programs_per_sm(self, num_warps: int) -> int:
        """How many programs fit on a Hopper SM: 64 Ki registers given out in 256s per warp, 227 KiB of shared memory of
        which each program takes 1 KiB more than it asks for, 2,048 threads."""
        warp_registers = -(-self.registers * 32 // 256) * 256
        return min(
            65536 // (warp_registers * num_warps), 228 * 1024 // (self.shared_bytes + 1024), 2048 // (32 * num_warps)
        )


def inspect(
    fn,
    signature: dict[str, str],
    constexprs: dict[str, object],
    num_warps: int,
    num_stages: int,
    capability: int = 90,
    **options: object,
) -> Compiled:
    """Compile ``fn`` for compute capability ``capability``.

    signature   type of each argument that is not a constexpr: ``*bf16``, ``*i32``, ``i32``, ``fp32``,
                ``tensordesc<bf16[64,128]>``. Pointers are taken to be aligned to 16 bytes, as the launcher finds them;
                an integer that is a multiple of 16 is written ``i32:16``
    constexprs  value of each constexpr argument
    options     further options of the compiler, such as ``launch_pdl``
    """
    names = fn.arg_names
    missing = set(names) - set(signature) - set(constexprs)
    if missing:
        raise ValueError(f"arguments without a type or value: {sorted(missing)}")
    types = {name: signature[name].removesuffix(":16") if name in signature else "constexpr" for name in names}
    aligned = [name for name in signature if signature[name].startswith("*") or signature[name].endswith(":16")]
    source = ASTSource(
        fn,
        types,
        {(names.index(name),): value for name, value in constexprs.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": num_warps, "num_stages": num_stages, **options},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _run("cuobjdump", "-res-usage", file.name)
        sass = _run("cuobjdump", "--dump-sass", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump does not say what the kernel uses: {usage}")
    return Compiled(
        registers=int(found[1]),
        stack=int(found[2]),
        shared_bytes=compiled.metadata.shared,
        instructions=Counter(_OPCODE.findall(sass)),
        sass=sass,
        ptx=compiled.asm["ptx"],
    )


def _run(tool: str, *arguments: str) -> str:
    """Standard output of one of the tools in Triton's wheel."""
    return subprocess.run([str(TOOLS / tool), *arguments], capture_output=True, text=True, check=True).stdout
