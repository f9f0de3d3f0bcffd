"""Machine cards: memory, bandwidth, arithmetic and power of GPUs and CPUs, from their makers' data sheets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from oss_eval.errors import UsageError
from oss_eval.models.card import plain

FILE = Path(__file__).parent / "reference" / "machines.yaml"
MIB = 2**20
GIB = 2**30

Positive = Annotated[float, Field(gt=0)]


class MachineCard(BaseModel):
    """One GPU, chip or CPU socket."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    aliases: tuple[str, ...] = ()
    """Names that drivers and people give it."""
    kind: Literal["gpu", "apple", "cpu"]
    vendor: str
    architecture: str
    compute_capability: str | None = None
    memory_mib: Positive | None = None
    """As its driver reports it; None: as much as is built in."""
    bandwidth_gb_s: Positive | None = None
    """10^9 bytes per second."""
    tflops: dict[str, float] = {}
    """10^12 dense operations per second by number format."""
    power_w: Positive | None = None
    cores: Annotated[int, Field(gt=0)] | None = None
    """Of a CPU."""
    sources: tuple[str, ...] = ()
    note: str | None = None
    unverified: tuple[str, ...] = ()
    """Fields for which no source was read."""

    @property
    def memory_bytes(self) -> float | None:
        """Bytes of its memory."""
        return None if self.memory_mib is None else self.memory_mib * MIB

    def flops(self, dtype: str) -> float | None:
        """Operations per second that weights of this format can be computed with.

        Formats of four bits are computed in 16 bits, but for MXFP4 and NVFP4 on Blackwell and CDNA 4, whose tensor
        cores take them with activations of 8 bits.
        """
        native = dtype in self.tflops and dtype in ("fp32", "bf16", "fp16", "fp8", "int8")
        if native:
            return self.tflops[dtype] * 1e12
        narrow = dtype in ("mxfp4", "nvfp4", "mxfp8") and self.architecture in ("blackwell", "cdna4")
        for name in ("fp8", "bf16", "fp16", "fp32") if narrow else ("bf16", "fp16", "fp32"):
            if name in self.tflops:
                return self.tflops[name] * 1e12
        return None


class Machine(BaseModel):
    """Several of one kind, that share a model by tensor parallelism."""

    model_config = ConfigDict(frozen=True)

    card: MachineCard
    count: Annotated[int, Field(gt=0)] = 1

    @property
    def name(self) -> str:
        """Its name, as `--gpu` takes it."""
        return self.card.name if self.count == 1 else f"{self.card.name}x{self.count}"


@lru_cache(maxsize=1)
def machines() -> dict[str, MachineCard]:
    """The cards that ship with oss-eval, by name."""
    values = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {card.name: card for card in map(MachineCard.model_validate, values)}


def _named(name: str) -> MachineCard | None:
    wanted = plain(name)
    for card in machines().values():
        if wanted in {plain(own) for own in (card.name, *card.aliases)}:
            return card
    return None


_SIZE = re.compile(r"(?i)\s*(\d{1,6}(?:\.\d{1,6})?)\s*(GiB|GB)\s*")
_COUNT = re.compile(r"(?P<name>.*\S)\s*[x×*]\s*(?P<count>\d{1,6})")


def get_machine(text: str) -> Machine:
    """The machine that `--gpu` names: `H100-80GB`, `H100-80GBx2`, a driver's name, or a memory size such as
    `16GB`, of which nothing else is known. Raises UsageError."""
    if (card := _named(text)) is not None:
        return Machine(card=card)
    name, count = text, 1
    if found := _COUNT.fullmatch(text):
        name, count = found["name"], int(found["count"])
    if not 0 < count <= 1024:
        raise UsageError(f"--gpu {text}: {count} is not a number of GPUs", "for example --gpu H100-80GBx8")
    if (card := _named(name)) is not None:
        return Machine(card=card, count=count)
    if size := _SIZE.fullmatch(name):
        memory = float(size[1]) * GIB / MIB  # memory is built in powers of two, whatever the label says
        if memory:
            card = MachineCard(name=name.strip(), kind="gpu", vendor="", architecture="", memory_mib=memory)
            return Machine(card=card, count=count)
    known = {plain(own): card.name for card in machines().values() for own in (card.name, *card.aliases)}
    near = list(dict.fromkeys(known[match] for match in get_close_matches(plain(name), known, n=3, cutoff=0.4)))
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UsageError(
        f"--gpu {text}: no machine card has that name",
        f"{hint}`oss-eval models --gpus` lists them; a memory size such as 16GB works too",
    )


def machine_of(names: Sequence[str | None]) -> Machine | None:
    """The machine whose GPUs a driver names so; None where one is not known or they differ."""
    cards = [None if name is None else _named(name) for name in names]
    first = cards[0] if cards else None
    if first is None or any(card is not first for card in cards):
        return None
    return Machine(card=first, count=len(names))
