"""Compile for real GPUs, without one, every kernel that CuPy generated on the CPU device: compile_kernels.py FOLDER

The sources lie in FOLDER as *.cu, CuPy's own kernels and minigrad's. NVRTC compiles each to a binary for every
architecture. Needs the wheels cupy-cuda13x, nvidia-cuda-nvrtc, nvidia-cuda-runtime; no driver.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cupy
import nvidia
from cupy.cuda import nvrtc

ARCHITECTURES = ("sm_75", "sm_90", "sm_100")
CORE = Path(cupy.__file__).parent / "_core" / "include"
INCLUDES = [
    CORE,
    *(CORE / "cupy" / "_cccl" / name for name in ("libcudacxx", "cub", "thrust")),
    *(Path(path) / "cu13" / "include" for path in nvidia.__path__),
]
OPTIONS = ("-std=c++17", "--device-as-default-execution-space", "-ftz=true", *(f"-I{path}" for path in INCLUDES))
FOR_AMD = "#include <cupy/hip_workaround.cuh>"  # what CuPy puts in front on the CPU device's platform


def compile_one(job: tuple[Path, str]) -> str:
    """The first lines of the compiler's complaint, or nothing."""
    path, architecture = job
    source = path.read_text(encoding="utf-8").replace(FOR_AMD, "")
    program = nvrtc.createProgram(source, path.name, (), ())
    try:
        nvrtc.compileProgram(program, (f"-arch={architecture}", *OPTIONS))
        return "" if nvrtc.getCUBIN(program) else "an empty binary"
    except nvrtc.NVRTCError:
        return "\n".join(nvrtc.getProgramLog(program).splitlines()[:5])
    finally:
        nvrtc.destroyProgram(program)


def main() -> int:
    sources = sorted(Path(sys.argv[1]).glob("*.cu"))
    ours = sum("minigrad_" in path.read_text(encoding="utf-8") for path in sources)
    jobs = [(path, architecture) for path in sources for architecture in ARCHITECTURES]
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        complaints = list(workers.map(compile_one, jobs, chunksize=8))
    for (path, architecture), complaint in zip(jobs, complaints):
        if complaint:
            print(f"{path.name} for {architecture}:\n{complaint}")
    failed = sum(map(bool, complaints))
    told = f"{len(sources)} kernels ({ours} of minigrad's own) for {', '.join(ARCHITECTURES)}"
    print(f"{told}: {len(jobs) - failed} compiled, {failed} refused")
    return 1 if failed or not ours else 0


if __name__ == "__main__":
    sys.exit(main())
