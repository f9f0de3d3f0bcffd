"""oss-eval: how fast and how good a language model behind an OpenAI-compatible endpoint is, with error bars."""

from importlib import import_module
from typing import Any

__version__ = "0.3.0"
__all__ = ["__version__", "compare", "resume", "run_bench", "run_perf"]


def __getattr__(name: str) -> Any:
    """The functions of `oss_eval.api`, imported when asked for: the command line answers at once without."""
    if name in __all__:
        return getattr(import_module("oss_eval.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
