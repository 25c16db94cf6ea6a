"""The optional compiled kernels: one extension module per instruction set, all from the same source.

Everything else about the package is in pyproject.toml. Without a compiler, or on another processor than x86-64 for the
two wider sets, the package installs all the same and computes in PyTorch and numpy. COOLVID_SETS in the environment
names the sets to build, for example portable,v3; CXXFLAGS and LDFLAGS add options of the compiler and the linker.
"""

import os
import platform

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup

# name of the module: (compiler's architecture, floats of a vector)
SETS = {"portable": ("", 4), "v3": ("x86-64-v3", 8), "v4": ("x86-64-v4", 16)}
FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fvisibility=hidden", "-pthread"]
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
WANTED = os.environ.get("COOLVID_SETS", ",".join(SETS)).split(",")
if unknown := set(WANTED) - {*SETS, ""}:
    raise SystemExit(f"COOLVID_SETS names {', '.join(sorted(unknown))}; choose of: {', '.join(SETS)}")


def extension(name: str) -> Pybind11Extension:
    architecture, lanes = SETS[name]
    target = [f"-march={architecture}", "-mprefer-vector-width=512"] if architecture else []
    return Pybind11Extension(
        f"coolvid.kernels._{name}",
        [f"coolvid/kernels/src/{part}.cpp" for part in ("module", "decode", "decode_pictures")],
        depends=[f"coolvid/kernels/src/{part}.h" for part in HEADERS],
        define_macros=[("COOLVID_VL", str(lanes)), ("COOLVID_MODULE", f"_{name}")],
        extra_compile_args=[*FLAGS, "-Wno-psabi", *target],
        extra_link_args=["-pthread"],
        cxx_std=20,
        optional=True,
    )


HEADERS = (
    *("arm", "cells", "compose", "encode_rans", "latents", "linear", "network_rate", "pool", "simd", "soap"),
    *("synthesis", "upsampling", "warp"),
    *(f"decode_{part}" for part in ("arrays", "crc", "frame", "latents", "memory", "parameters", "rans", "simd")),
    *("decode_synthesis", "decode_upsampling", "decode_warp"),
)

ParallelCompile().install()
setup(
    ext_modules=[extension(name) for name in SETS if name in WANTED and (name == "portable" or IS_X86)],
    cmdclass={"build_ext": build_ext},
)
