"""A model as tables and JSON: its sizes, what it fits, bounds of its speed, runtime advice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from oss_eval.models import roofline
from oss_eval.models.card import BITS, Dtype, ModelCard, SlidingAttention
from oss_eval.models.fit import MEMORY_SHARE, Fit, fit
from oss_eval.models.machine import GIB, Machine, machines
from oss_eval.models.runtime_advice import RuntimeAdvice, advice_for
from oss_eval.models.sizes import (
    active_params,
    kv_bytes_per_token,
    sequence_kv_bytes,
    state_bytes,
    total_params,
    weight_bytes,
)
from oss_eval.report.format import NOTHING, number
from oss_eval.report.table import empty_table

Tables = Callable[[Console], None]
BATCHES = (1, 4, 16, 64, 256)
"""Batch sizes whose bounds are shown, beside the one asked for."""
TYPICAL_CONTEXT = 8192
"""Tokens of a sequence where no context is given."""


@dataclass(frozen=True, slots=True)
class ModelSheet:
    """What is asked about a model."""

    card: ModelCard
    doubt: str | None
    machine: Machine | None
    context: int | None
    parallel: int
    dtype: Dtype | None
    kv_dtype: Dtype
    memory_share: float = MEMORY_SHARE


def billions(value: float) -> str:
    """Parameters: 20.9B, 135M."""
    if value >= 100e9:
        return f"{value / 1e9:,.0f}B"
    return f"{value / 1e9:,.1f}B" if value >= 1e9 else f"{value / 1e6:,.0f}M"


def gib(value: float) -> str:
    """Bytes in GiB."""
    return f"{value / GIB:,.2f}" if abs(value) < 100 * GIB else f"{value / GIB:,.1f}"


def thousands(tokens: int) -> str:
    """Tokens: 32k, or 1,000 where they are no multiple of 1024."""
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else f"{tokens:,}"


def model_sheet(sheet: ModelSheet) -> tuple[dict[str, Any], Tables]:
    """One model, on a machine where one is given. Raises UsageError."""
    document = card_document(sheet.card, sheet.doubt, sheet.dtype, sheet.kv_dtype)
    if sheet.machine is None:
        found = [(machine, _fit(sheet, machine)) for machine in _comparable()]
        document["machines"] = [{"gpu": machine.name, "fit": _fit_document(one)} for machine, one in found]
        return document, lambda console: _print_card(sheet, console, found)
    one = _fit(sheet, sheet.machine)
    steps = _steps(sheet, sheet.machine, one.context)
    advice = advice_for(sheet.card, sheet.machine.card)
    document |= {
        "gpu": sheet.machine.name,
        "fit": _fit_document(one),
        "roofline": _roofline_document(sheet, sheet.machine, steps, one.context),
        "advice": [row.model_dump(mode="json") for row in advice],
    }
    return document, lambda console: _print_machine(sheet, console, one, steps, advice)


def _comparable() -> list[Machine]:
    """Every machine with memory of its own."""
    return [Machine(card=card) for card in machines().values() if card.memory_bytes is not None]


def _fit(sheet: ModelSheet, machine: Machine) -> Fit:
    context = sheet.context
    if context is None:
        context = min(TYPICAL_CONTEXT, sheet.card.context)
    card = sheet.card
    if sheet.doubt is not None:  # another model, which may take longer sequences
        card = card.model_copy(update={"context": max(card.context, context)})
    return fit(
        card, machine, context=context, users=sheet.parallel, dtype=sheet.dtype, kv_dtype=sheet.kv_dtype,
        memory_share=sheet.memory_share,
    )  # fmt: skip


def card_document(card: ModelCard, doubt: str | None, dtype: Dtype | None, kv_dtype: Dtype) -> dict[str, Any]:
    """A model as `models --json` prints it; `dtype`: of all weights, None for the checkpoint's."""
    moe, bits = card.moe, BITS[kv_dtype]
    return {
        "name": card.name,
        "doubt": doubt,
        "total_params": total_params(card),
        "active_params": active_params(card),
        "weight_bytes": round(weight_bytes(card, dtype)),
        "kv_bytes_per_token": kv_bytes_per_token(card, bits),
        "kv_bytes_per_token_beyond_windows": kv_bytes_per_token(card, bits, beyond_windows=True),
        "state_bytes": state_bytes(card),
        "kv_bytes_full_context": sequence_kv_bytes(card, card.context, bits),
        "layers": card.layers,
        "hidden": card.hidden,
        "vocab": card.vocab,
        "context": card.context,
        "experts": None if moe is None else moe.experts,
        "active_experts": None if moe is None else moe.active_experts,
        "attention": [part.model_dump(mode="json") for part in card.attention],
        "mlp": [part.model_dump(mode="json") for part in card.mlp],
        "weights": card.weights if dtype is None else {"all": dtype},
        "sinks": card.sinks,
        "efforts": list(card.efforts),
        "published": None if card.published is None else card.published.model_dump(mode="json"),
        "source": card.source,
        "notes": list(card.notes),
    }


def _fit_document(one: Fit) -> dict[str, Any]:
    return asdict(one)


@dataclass(frozen=True, slots=True)
class _Step:
    """The bounds at one batch size."""

    batch: int
    experts: float
    bound: roofline.Bound


def _steps(sheet: ModelSheet, machine: Machine, context: int) -> list[_Step]:
    """Bounds of decoding by batch size; empty where the machine's bandwidth or arithmetic is not known."""
    if not roofline.known(machine, sheet.card, sheet.dtype):
        return []
    return [
        _Step(
            batch,
            roofline.distinct_experts(sheet.card, batch),
            roofline.decode_step(sheet.card, machine, batch, context, sheet.dtype, sheet.kv_dtype),
        )
        for batch in sorted({*BATCHES, sheet.parallel})
    ]


def _roofline_document(
    sheet: ModelSheet, machine: Machine, steps: Iterable[_Step], context: int
) -> dict[str, Any] | None:
    rows = [
        {
            "batch": step.batch, "context": context, "step_ms": step.bound.seconds * 1e3,
            "output_tps": step.batch / step.bound.seconds, "output_tps_per_user": 1 / step.bound.seconds,
            "limit": step.bound.limit, "distinct_experts": step.experts or None,
        }
        for step in steps
    ]  # fmt: skip
    if not rows:
        return None
    read = roofline.prefill(sheet.card, machine, context, sheet.dtype)
    prefill = {"tokens": context, "ms": read.seconds * 1e3, "tps": context / read.seconds, "limit": read.limit}
    return {"decode": rows, "prefill": prefill}


def _print_card(sheet: ModelSheet, console: Console, found: list[tuple[Machine, Fit]]) -> None:
    _print_facts(sheet, console)
    context = thousands(found[0][1].context)
    table = empty_table(f"Memory, for sequences of {context} tokens")
    for title in ("Machine", "Fits", "Left (GiB)", "Most users", "Bound, 1 user\n(tok/s)"):
        table.add_column(title, justify="left" if title == "Machine" else "right", no_wrap=True)
    for machine, one in found:
        known = roofline.known(machine, sheet.card, sheet.dtype) and one.fits
        step = (
            roofline.decode_step(sheet.card, machine, 1, one.context, sheet.dtype, sheet.kv_dtype)
            if known
            else None
        )
        table.add_row(
            machine.name, "yes" if one.fits else "no", gib(one.left_bytes), f"{one.max_users:,}",
            NOTHING if step is None else number(1 / step.seconds), style="" if one.fits else "bright_black",
        )  # fmt: skip
    console.print()
    console.print(table)
    _note(console, f"of {sheet.memory_share:.0%} of the memory (--gpu-memory-utilization); a bound, not a promise")
    _note(console, "more of one machine: --gpu GPU[xN]; its names: oss-eval models --gpus")


def _note(console: Console, text: str) -> None:
    console.print(f"  {text}", style="bright_black", highlight=False, markup=False)


def _print_facts(sheet: ModelSheet, console: Console) -> None:
    card, moe = sheet.card, sheet.card.moe
    console.print(f"[bold]{card.name}[/]", highlight=False)
    if sheet.doubt:
        console.print(sheet.doubt, style="yellow", highlight=False, markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    published = card.published
    stated = ""
    if published is not None:
        active = "" if published.active_params is None else f", {billions(published.active_params)} active"
        stated = f" (published: {billions(published.total_params)}{active})"
    total, active = billions(total_params(card)), billions(active_params(card))
    formats = ", ".join(f"{group} {kind}" for group, kind in card.weights.items())
    formats = sheet.dtype or (f"{formats}, rest bf16" if formats else "bf16")
    bits = BITS[sheet.kv_dtype]
    beyond = kv_bytes_per_token(card, bits, beyond_windows=True)
    window = "" if beyond == kv_bytes_per_token(card, bits) else f", {beyond / 1024:,.0f} KiB beyond the windows"
    state = f", and {state_bytes(card) / 2**20:,.1f} MiB a sequence" if state_bytes(card) else ""
    rows = [
        ("Parameters", f"{total}, {active} for a token{stated}"),
        ("Layers", f"{card.layers}: {', '.join(map(_attention_text, card.attention))}"),
        (
            "Experts",
            None if moe is None else f"{moe.active_experts} of {moe.experts} for a token in {moe.layers} layers",
        ),
        ("Weights", f"{gib(weight_bytes(card, sheet.dtype))} GiB ({formats})"),
        (
            "KV cache",
            f"{kv_bytes_per_token(card, bits) / 1024:,.1f} KiB a token ({sheet.kv_dtype}){window}{state}",
        ),
        ("Context", f"{card.context:,} tokens, vocabulary {card.vocab:,}"),
        ("Reasoning effort", ", ".join(card.efforts) or "none defined"),
        ("Source", card.source),
        ("Published", None if published is None else published.source),
        *(("Note", note) for note in card.notes),
    ]
    for name, value in rows:
        if value is not None:
            table.add_row(name, value)
    console.print(table)


def _attention_text(part: Any) -> str:
    kind = f"window {part.window}" if isinstance(part, SlidingAttention) else part.kind
    return f"{part.layers} {kind}"


def _print_machine(
    sheet: ModelSheet, console: Console, one: Fit, steps: list[_Step], advice: list[RuntimeAdvice]
) -> None:
    assert sheet.machine is not None
    _print_facts(sheet, console)
    console.print()
    users = f"{one.users:,} sequence{'s' * (one.users > 1)} of {thousands(one.context)} tokens"
    verdict = "[green]enough[/]" if one.fits else "[red]not enough[/]"
    console.print(f"[bold]{sheet.machine.name}[/]: {verdict} memory for {users}", highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    share = f"{sheet.memory_share:.0%} of {gib(one.memory_bytes)} GiB"
    for name, value in (
        (f"Usable, {share}", f"{gib(one.usable_bytes)} GiB"),
        ("Weights", f"{gib(one.weights_bytes)} GiB"),
        ("KV cache", f"{gib(one.kv_bytes)} GiB"),
        ("Left", f"{gib(one.left_bytes)} GiB"),
        (f"Most users with {thousands(one.context)} tokens", f"{one.max_users:,}"),
    ):
        table.add_row(name, value)
    console.print(table)
    if steps:
        console.print()
        console.print(_steps_table(sheet, steps, one))
        read = roofline.prefill(sheet.card, sheet.machine, one.context, sheet.dtype)
        _note(
            console,
            f"a prompt of {thousands(one.context)} tokens: at least {number(read.seconds * 1e3)} ms, "
            f"{one.context / read.seconds:,.0f} tokens/s ({read.limit})",
        )
        _note(console, "bounds: what memory bandwidth and arithmetic allow; engines reach a part of them")
    else:
        _note(console, f"no bounds of the speed: bandwidth or arithmetic of {sheet.machine.name} is not known")
    if advice:
        console.print("\n[bold]Runtimes[/]", highlight=False)
        console.print(advice_table(advice))
        _note(console, "sources of each: --json")


def advice_table(advice: list[RuntimeAdvice]) -> Table:
    """Advice by engine, each with its reason and date."""
    table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
    for row in advice:
        engines = ", ".join(row.engines) or "choice"
        since = f" {row.since}+" if row.since else ""
        text = Text(row.advice).append(f" {row.reason} ({row.date:%Y-%m})", "bright_black")
        table.add_row(Text(f"  {engines}{since}"), text)
    return table


def _steps_table(sheet: ModelSheet, steps: list[_Step], one: Fit) -> Table:
    moe = sheet.card.moe
    table = empty_table(f"Bounds of decoding, {thousands(one.context)} tokens of context")
    titles = ["Batch", "Step\n(ms)", "tok/s", "tok/s\na user", "Limit"] + (["Experts\nread"] if moe else [])
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for step in steps:
        row = [
            f"{step.batch}{'*' if step.batch > one.max_users else ''}", number(step.bound.seconds * 1e3),
            f"{step.batch / step.bound.seconds:,.0f}", number(1 / step.bound.seconds), step.bound.limit,
        ]  # fmt: skip
        table.add_row(
            *row, *([f"{step.experts:.1f}"] if moe else []), style="bold" if step.batch == sheet.parallel else ""
        )
    if any(step.batch > one.max_users for step in steps):
        table.caption, table.caption_justify = "* more than fit", "left"
    return table
