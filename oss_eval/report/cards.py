"""Lists of the model and machine cards."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from oss_eval.models.card import cards
from oss_eval.models.machine import GIB, MachineCard, machines
from oss_eval.models.sizes import active_params, kv_bytes_per_token, total_params, weight_bytes
from oss_eval.report.format import NOTHING
from oss_eval.report.model_sheet import Tables, billions, card_document, gib, thousands
from oss_eval.report.table import empty_table


def model_list() -> tuple[list[dict[str, Any]], Tables]:
    """All model cards."""

    def show(console: Console) -> None:
        table = empty_table()
        for title in (
            "Model",
            "Total",
            "Active",
            "Layers",
            "Experts",
            "Context",
            "Weights\n(GiB)",
            "KV\n(KiB)",
        ):
            table.add_column(title, justify="left" if title == "Model" else "right", no_wrap=True)
        for card in cards().values():
            moe = card.moe
            table.add_row(
                card.name, billions(total_params(card)), billions(active_params(card)), str(card.layers),
                NOTHING if moe is None else f"{moe.active_experts} of {moe.experts}", thousands(card.context),
                gib(weight_bytes(card)), f"{kv_bytes_per_token(card) / 1024:,.0f}",
            )  # fmt: skip
        console.print(table)
        console.print("one in detail: oss-eval models NAME [--gpu GPU]", style="bright_black", highlight=False)

    return [card_document(card, None, None, "bf16") for card in cards().values()], show


def machine_list() -> tuple[list[dict[str, Any]], Tables]:
    """All machine cards."""

    def show(console: Console) -> None:
        table = empty_table()
        names = (
            "Machine",
            "Architecture",
            "Memory\n(GiB)",
            "Bandw.\n(GB/s)",
            "BF16\n(TF/s)",
            "FP8\n(TF/s)",
            "Power\n(W)",
        )
        for title in names:
            table.add_column(title, justify="left" if title in names[:2] else "right", no_wrap=True)
        doubtful = False
        for card in machines().values():
            doubtful |= bool(card.unverified)
            table.add_row(
                card.name + ("*" if card.unverified else ""), card.architecture,
                NOTHING if card.memory_bytes is None else f"{card.memory_bytes / GIB:,.1f}",
                _plain(card.bandwidth_gb_s), _tflops(card, "bf16", "fp16", "fp32"), _tflops(card, "fp8"),
                _plain(card.power_w),
            )  # fmt: skip
        console.print(table)
        lines = [
            "dense operations, without sparsity; FP16 or FP32 where there is no BF16 (FP32 of CPUs and Apple)"
        ]
        lines += ["* some figures have no source that was read: oss-eval models --gpus --json"] * doubtful
        for line in lines:
            console.print(f"  {line}", style="bright_black", highlight=False)

    return [card.model_dump(mode="json") for card in machines().values()], show


def _plain(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def _tflops(card: MachineCard, *names: str) -> str:
    return next((f"{card.tflops[name]:,.0f}" for name in names if name in card.tflops), NOTHING)
