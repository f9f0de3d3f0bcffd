"""Compiles oss_eval/probe/_reader.c, where there is a C compiler; oss-eval works without it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "oss_eval/probe/_reader.c"
TARGET = "oss_eval/probe/_reader.abi3.so"


class CompileReader(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled reader to a wheel, and to the tree of an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """hatchling: before a wheel is built."""
        if self.target_name != "wheel" or not sys.platform.startswith("linux"):
            return
        root = Path(self.root)
        compiler = (sysconfig.get_config_var("CC") or "cc").split()
        command = [
            *compiler,
            "-O2",
            "-shared",
            "-fPIC",
            f"-I{sysconfig.get_path('include')}",
            SOURCE,
            "-o",
            TARGET,
        ]
        try:
            subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            (root / TARGET).unlink(missing_ok=True)
            why = getattr(error, "stderr", None) or str(error)
            self.app.display_warning(f"the reader is not compiled, Python reads instead: {why.strip()[-300:]}")
            return
        if version != "editable":
            build_data["artifacts"].append(TARGET)
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"cp311-abi3-{platform}"
