"""Builds the optional C parts of the runtime (the spawn helper, the init program); the rest is in pyproject.toml."""

import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

INIT_SOURCE = Path("engine/runtime/_init.c")


class BuildRuntime(build_ext):
    """After the extension the static program for `--init`; where it cannot be linked, `--init` says so."""

    def run(self) -> None:
        super().run()
        folder = Path() if self.inplace else Path(self.build_lib)
        target = folder / INIT_SOURCE.parent / "docker-init"
        target.parent.mkdir(parents=True, exist_ok=True)
        command = ["cc", "-static", "-Os", "-s", "-Wall", "-Wextra", "-o", str(target), str(INIT_SOURCE)]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.warn(f"containers cannot have --init: {' '.join(command)}: {error}")


setup(
    cmdclass={"build_ext": BuildRuntime},
    ext_modules=[
        Extension(
            "engine.runtime._spawn",
            sources=["engine/runtime/_spawn.c"],
            extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers"],
            optional=True,
        )
    ],
)
