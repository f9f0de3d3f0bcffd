"""`oss-eval models`: what a model is made of, whether it fits a GPU, and how fast it can be there."""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path
from typing import Any, get_args

from oss_eval.cli.options import share
from oss_eval.errors import UsageError
from oss_eval.models.card import Dtype
from oss_eval.models.fit import MEMORY_SHARE

EPILOG = """examples:
  oss-eval models                                               the models that have a card
  oss-eval models --gpus                                        the GPUs and CPUs that have a card
  oss-eval models gpt-oss-20b                                   one model, and the GPUs that it fits
  oss-eval models gpt-oss-20b --gpu A10 --context 32k --parallel 64
  oss-eval models gpt-oss-120b --gpu H100-80GBx2 --dtype bf16
  oss-eval models --from ./config.json --gpu 16GB               any model with a Hugging Face config
"""
KV_DTYPES = ("bf16", "fp8")


def tokens(text: str) -> int:
    """argparse: a number of tokens, `32k` is 32768."""
    found = re.fullmatch(r"(?i)\s*(\d+)\s*(k?)\s*", text)
    value = int(found[1]) * (1024 if found[2] else 1) if found else 0
    if not 0 < value <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of tokens, such as 32768 or 32k")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of requests")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A model, and the machine that it is to run on."""
    parser.description = (
        "What a model is made of: parameters, bytes of the weights and of the KV cache, with the sources of the "
        "figures. With --gpu: whether it fits, for how many users, bounds of the speed, and which runtime suits."
    )
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("NAME", nargs="?", help="a model, by the name of its card or as a server names it")
    parser.add_argument(
        "--from", dest="config", type=Path, metavar="FILE", help="the model of a Hugging Face config.json"
    )
    parser.add_argument("--gpus", action="store_true", help="list the machine cards")
    parser.add_argument(
        "--gpu", metavar="GPU[xN]", help="a machine card, N of them, or a memory size such as 16GB"
    )
    parser.add_argument("--context", type=tokens, metavar="N", help="tokens of a sequence, e.g. 32k (default 8k)")
    parser.add_argument(
        "--parallel", type=_count, default=1, metavar="N", help="concurrent sequences of that length (default 1)"
    )
    parser.add_argument(
        "--dtype", choices=get_args(Dtype), help="number format of all weights (default: the checkpoint's)"
    )
    parser.add_argument(
        "--kv-cache-dtype", choices=KV_DTYPES, default="bf16",
        help="number format of the KV cache (default bf16)",
    )  # fmt: skip
    parser.add_argument(
        "--gpu-memory-utilization", type=partial(share, one=True), default=MEMORY_SHARE, metavar="SHARE",
        help=f"share of the memory for weights and KV cache (default {MEMORY_SHARE:g}, as vLLM's)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")


def run(arguments: argparse.Namespace) -> int:
    """Print the cards, or one."""
    from oss_eval.cli.output import print_json
    from oss_eval.models.card import get_card
    from oss_eval.models.hf_config import card_from_config
    from oss_eval.models.machine import get_machine
    from oss_eval.report import cards, model_sheet
    from oss_eval.system.terminal import open_console

    if arguments.NAME and arguments.config:
        raise UsageError(
            f"both a model {arguments.NAME} and --from {arguments.config} are given", "give one of them"
        )
    if not arguments.NAME and not arguments.config:
        if arguments.gpu:
            raise UsageError(f"--gpu {arguments.gpu} is given without a model", "oss-eval models NAME --gpu GPU")
        listed, tables = cards.machine_list() if arguments.gpus else cards.model_list()
        document: Any = listed
    else:
        machine = None if arguments.gpu is None else get_machine(arguments.gpu)
        card, doubt = (card_from_config(arguments.config), None) if arguments.config else get_card(arguments.NAME)
        sheet = model_sheet.ModelSheet(
            card, doubt, machine, arguments.context, arguments.parallel, arguments.dtype,
            arguments.kv_cache_dtype, arguments.gpu_memory_utilization,
        )  # fmt: skip
        document, tables = model_sheet.model_sheet(sheet)
    if arguments.json:
        print_json(document)
    else:
        tables(open_console())
    return 0
