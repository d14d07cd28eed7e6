"""Build: all kernels of `source`, compiled for a level, and linked into one flat piece of machine code.

    python -m minisbert.kernels.runtime.build FOLDER [LEVEL ...]

Numba makes LLVM's language of the kernels, llvmlite makes an object file of that for any processor, whichever this one
is, and `link` one piece of it. A level's constants are fixed when `tuning` is imported: so each is built in a process
of its own. The same sources and versions give the same bytes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minisbert.kernels.levels import CHOSEN, LEVELS, Level, host_levels, why_not
from minisbert.kernels.runtime import instructions
from minisbert.kernels.runtime.kernelfile import CONVENTIONS, ENTRIES, KernelsError, packed
from minisbert.kernels.runtime.link import link
from minisbert.kernels.runtime.load import callable_from, file_name

__all__ = ["build", "build_all", "compiled_here"]

# A flat piece has nobody to call, so a loop that writes zeros stays one. Its stack may be one of Windows: that grows by
# a page when the page before was touched, and what is below its end can be overwritten at any time.
_ALONE = '"no-builtin-memset" "no-builtin-memcpy" "no-builtin-memmove" noredzone "probe-stack"="inline-asm"'
_NAMES = [f"{convention}_{name}" for convention in CONVENTIONS for name in ENTRIES]


def build() -> bytes:
    """Return the file of this process's level.

    Raises
    ------
    LinkError
        If the code needs anything that is not in it.
    """
    assert CHOSEN is not None
    return packed(*link(_object_file(LEVELS[CHOSEN]), _NAMES))


def build_all(folder: Path, levels: list[str]) -> list[Path]:
    """Build levels, each in a process of its own, all at once; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", "from minisbert.kernels.runtime import build; build.main_of_level()"]
    running = [
        subprocess.Popen(
            command, env={**os.environ, "MINISBERT_LEVEL": level, "NUMBA_OPT": "0"}, stdout=subprocess.PIPE
        )
        for level in levels
    ]
    files = [folder / file_name(level) for level in levels]
    for path, process in zip(files, running, strict=True):
        content, _ = process.communicate()
        if process.returncode:
            sys.exit(f"the kernels for {path.stem} could not be built; what was said is above")
        beside = path.with_suffix(".tmp")  # a process may run what it has mapped of the file that is there
        beside.write_bytes(content)
        os.replace(beside, path)
    return files


def main_of_level() -> None:
    """Write the file of this process's level to standard output."""
    sys.stdout.buffer.write(build())


@cache
def compiled_here() -> Any:
    """Return what `load.kernels` does, built here and now, in a process of its own: which takes some seconds.

    Raises
    ------
    KernelsError
        If Numba is not installed, or can't build them.
    """
    if reason := why_not():
        raise KernelsError(reason)
    if find_spec("numba") is None:
        raise KernelsError("Numba is not installed, which would compile them: pip install minisbert[jit]")
    code = "from minisbert.kernels.runtime import build; build.main_of_level()"
    told = {"MINISBERT_LEVEL": CHOSEN or "", "NUMBA_OPT": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | told, capture_output=True)
    except OSError as error:
        raise KernelsError(f"Numba could not be run to compile them ({error})") from error
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"status {done.returncode}"
        raise KernelsError(f"Numba could not compile them ({last}): install it again, as minisbert[jit]")
    return callable_from(done.stdout)


# --- From Python to an object file ------------------------------------------------------------------------


def _object_file(level: Level) -> bytes:
    """Compile all kernels for a level's processor: optimised as a whole, independent of position, for 2 GB at most."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(level.triple)
    machine = target.create_target_machine(level.cpu, level.features, 3, reloc="pic", codemodel="small")
    text = _for_target(_module(), level, str(machine.target_data))
    module = llvm.parse_assembly(text)
    for function in module.functions:
        if not function.is_declaration and function.name not in _NAMES:
            function.linkage = "internal"  # so that what nobody calls goes
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    content: bytes = machine.emit_object(module)
    return content


def _module() -> str:
    """Return all kernels in LLVM's language, as Numba makes it, and before any optimisation."""
    import llvmlite.binding as llvm
    from numba import cfunc, types

    queue, texts, natives = import_module("minisbert.kernels.source.workqueue"), [], {}
    for name, count in ENTRIES.items():
        function = cfunc(types.void(*[types.int64] * count))(_calling(getattr(queue, name), name, count))
        texts.append(_without_wrapper(function.inspect_llvm()))
        natives[name] = function.native_name.removeprefix("cfunc.")
    module, *others = map(llvm.parse_assembly, texts)
    for other in others:
        module.link_in(other)
    entries = (_entry(convention, name, natives[name]) for convention in CONVENTIONS for name in ENTRIES)
    return "".join([str(module), *entries])


def _calling(kernel: Any, name: str, count: int) -> Any:
    """Make a function of so many arguments, which Numba has to know one by one, that calls a kernel."""
    given = ", ".join(f"a{i}" for i in range(count))
    scope = {"kernel": kernel}
    exec(f"def {name}({given}):\n    kernel({given})", scope)
    return scope[name]


def _without_wrapper(text: str) -> str:
    """Leave out what a `cfunc` is for C: it would raise Python's exceptions, and the kernels have none."""
    return re.sub(r'^define ptr @"?cfunc\..*?^}\n', "", text, flags=re.M | re.S)


def _entry(convention: str, name: str, native: str) -> str:
    """Return a function that calls one of Numba's, which has two hidden arguments: for a result, and for an error.

    A function of Windows keeps more registers as they were, and takes its arguments in others. So that is done here
    once, and the code itself is the same for all systems. On ARM the two conventions are one.
    """
    given = ", ".join(f"i64 %a{i}" for i in range(ENTRIES[name]))
    return (
        f"\ndefine {convention}cc void @{convention}_{name}({given}) {{\n"
        "  %result = alloca ptr\n  %error = alloca ptr\n"
        f'  %status = call i32 @"{native}"(ptr %result, ptr %error, {given}) noinline\n  ret void\n}}\n'
    )


def _for_target(text: str, level: Level, layout: str) -> str:
    text = instructions.for_target(text, level)
    windows = "win64cc" if level.architecture == "x86_64" else "ccc"
    text = text.replace("unixcc", "ccc").replace("windowscc", windows)
    text = re.sub(r"^target triple = .*$", f'target triple = "{level.triple}"', text, flags=re.M)
    text = re.sub(r"^target datalayout = .*$", f'target datalayout = "{layout}"', text, flags=re.M)
    return re.sub(r"^(define .*?\))((?: [^()]*)?\{)$", rf"\1 {_ALONE}\2", text, flags=re.M)


def main() -> None:
    """Build the levels that are named, ``all``, or the best that this machine can run, and leave no others."""
    folder, *levels = sys.argv[1:]
    levels = [*LEVELS] if levels == ["all"] else levels or host_levels()[:1]
    files = build_all(Path(folder), levels)
    for path in {*Path(folder).glob(file_name("*"))} - {*files}:
        path.unlink()
    for path in files:
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
