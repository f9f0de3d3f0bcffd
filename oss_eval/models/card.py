"""Model cards: what a model is made of, from its published configuration."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from oss_eval.config.yaml_file import read_yaml
from oss_eval.errors import UsageError

CARDS = Path(__file__).parent

Count = Annotated[int, Field(gt=0)]

BITS = {
    "fp32": 32.0, "bf16": 16.0, "fp16": 16.0,
    "fp8": 8.0 + 32 / 128**2,  # an FP32 scale for each block of 128 x 128
    "int8": 8.0,
    "mxfp8": 8.25, "mxfp4": 4.25,  # an 8-bit scale for each 32 weights
    "nvfp4": 4.5,  # an FP8 scale for each 16 weights
    "int4": 4.0 + 16 / 32,  # a 16-bit scale for each 32 weights
}  # fmt: skip
"""Bits of a weight with its share of the scales. MX formats: OCP Microscaling Formats (MX) v1.0, section 5,
https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf."""
Dtype = Literal["fp32", "bf16", "fp16", "fp8", "int8", "mxfp8", "mxfp4", "nvfp4", "int4"]
Group = Literal["experts", "attention", "mlp", "embedding"]
"""Weights that share a number format: routed experts; attention; dense and shared MLPs; both embeddings. Routers
stay in BF16."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _Layers(_Part):
    layers: Count
    """Layers of this kind."""


class FullAttention(_Layers):
    """Each token attends to all before it; query heads may share a key-value head."""

    kind: Literal["full"]
    heads: Count
    kv_heads: Count
    head_dim: Count
    gated: bool = False
    """Whether the query projection makes an output gate too."""


class SlidingAttention(_Layers):
    """Each token attends to the last `window` tokens."""

    kind: Literal["sliding"]
    window: Count
    heads: Count
    kv_heads: Count
    head_dim: Count
    gated: bool = False


class LatentAttention(_Layers):
    """Multi-head latent attention (MLA): one compressed vector a token is cached for all heads
    (https://arxiv.org/abs/2405.04434, section 2.1)."""

    kind: Literal["mla"]
    heads: Count
    q_rank: Count | None
    """None: the query is not compressed."""
    kv_rank: Count
    nope_dim: Count
    rope_dim: Count
    value_dim: Count


class LinearAttention(_Layers):
    """Gated DeltaNet: a state of constant size for each sequence, no KV cache (https://arxiv.org/abs/2412.06464)."""

    kind: Literal["linear"]
    key_heads: Count
    value_heads: Count
    key_dim: Count
    value_dim: Count
    conv: Count = 4


class DenseMlp(_Layers):
    """Gate, up and down projection."""

    kind: Literal["dense"]
    width: Count


class MoeMlp(_Layers):
    """A mixture of experts, each with gate, up and down projection."""

    kind: Literal["moe"]
    width: Count
    """Of one expert."""
    experts: Count
    active_experts: Count
    """Routed experts that each token goes through."""
    shared_width: Annotated[int, Field(ge=0)] = 0
    """Width of all shared experts together."""

    @model_validator(mode="after")
    def _enough(self) -> MoeMlp:
        if self.active_experts > self.experts:
            raise ValueError(f"{self.active_experts} active of {self.experts} experts")
        return self


Attention = Annotated[
    FullAttention | SlidingAttention | LatentAttention | LinearAttention, Field(discriminator="kind")
]
Mlp = Annotated[DenseMlp | MoeMlp, Field(discriminator="kind")]


class Published(_Part):
    """Totals as the model's makers publish them."""

    total_params: float
    active_params: float | None = None
    checkpoint_bytes: float | None = None
    source: str


class ModelCard(_Part):
    """A model's architecture. Counts are matrices only: norms and biases are below 0.1% of the weights."""

    name: str
    aliases: tuple[str, ...] = ()
    """Names under which servers list it."""
    source: str
    """Where the architecture is from."""
    efforts: tuple[str, ...] = ()
    """Values of reasoning_effort that its documentation defines."""
    published: Published | None = None
    hidden: Count
    vocab: Count
    context: Count
    """Tokens."""
    tied_embeddings: bool = False
    attention: Annotated[tuple[Attention, ...], Field(min_length=1)]
    mlp: Annotated[tuple[Mlp, ...], Field(min_length=1)]
    weights: dict[Group, Dtype] = {}
    """Number formats of the checkpoint; groups that are not named are in BF16."""
    sinks: bool = False
    """Whether the attention has learned sinks."""
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _layers_agree(self) -> ModelCard:
        attention, mlp = (sum(part.layers for part in parts) for parts in (self.attention, self.mlp))
        if attention != mlp:
            raise ValueError(f"{attention} attention layers and {mlp} MLP layers")
        return self

    @property
    def layers(self) -> int:
        """Its layers."""
        return sum(part.layers for part in self.attention)

    @property
    def moe(self) -> MoeMlp | None:
        """Its mixture of experts; None in a dense model."""
        return next((part for part in self.mlp if isinstance(part, MoeMlp)), None)


def read_card(path: Path) -> ModelCard:
    """A card from a YAML file. Raises UsageError."""
    values = read_yaml(path, UsageError, "model card")
    try:
        return ModelCard.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the card"
        raise UsageError(f"model card {path}: {where}: {first['msg']}", "see oss-eval models --help") from None


@lru_cache(maxsize=1)
def cards() -> dict[str, ModelCard]:
    """The cards that ship with oss-eval, by name."""
    found = [read_card(path) for path in sorted(CARDS.glob("*.yaml"))]
    return {card.name: card for card in found}


def plain(name: str) -> str:
    """A name in a form in which its spellings agree: `openai/gpt-oss:20b` is `openai-gpt-oss-20b`."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


FORMATS = {
    "fp8", "mxfp4", "nvfp4", "fp4", "int4", "int8", "awq", "gptq", "gguf", "bf16", "fp16", "w4a16", "w8a8", "4bit",
    "8bit",
}  # fmt: skip
"""Parts of names that tell the number format of the weights."""
VARIANTS = {"instruct", "it", "chat", "base", "hf", "mlx", "unsloth", "latest", "quantized", "dynamic", "bnb"}
"""Parts of names that leave the architecture as it is."""


def find_card(served: str) -> tuple[ModelCard, str | None] | None:
    """(card, doubt) of a model by the name that a server gives it; None if no card is like it.

    The doubt is None where the name is the card's own or one of its aliases, with or without the owner in front.
    """
    name = plain(served)
    short = plain(served.rstrip("/").rpartition("/")[2].removesuffix(".gguf"))
    known = {plain(alias): card for card in cards().values() for alias in (*card.aliases, card.name)}
    known |= {plain(alias.rpartition("/")[2]): card for card in cards().values() for alias in card.aliases}
    for exact in (name, short):
        if exact in known:
            return known[exact], None
    rest = _architecture(short)
    for own, card in sorted(known.items(), key=lambda item: -len(item[0])):
        bare = _architecture(own)
        if rest == bare:
            return _in_format(card, served, short)
        if rest.startswith(f"{bare}-") and not ANOTHER.search(rest.removeprefix(bare)):
            return card, f"{served} is taken for {card.name}, with which its name begins; it may be another model"
    return None


ANOTHER = re.compile(r"\d[bm]\b|distill|qwen|llama|mistral|gemma|embedding|rerank|reward|-vl\b|omni")
"""What in the rest of a name says that it is another model: a size, another family, another purpose."""
NAMED: dict[str, Dtype] = {
    "fp8": "fp8", "mxfp4": "mxfp4", "nvfp4": "nvfp4", "fp4": "nvfp4", "int4": "int4", "awq": "int4",
    "gptq": "int4", "w4a16": "int4", "4bit": "int4", "int8": "int8", "w8a8": "int8",
    "8bit": "int8", "q4": "int4", "q8": "int8",
}  # fmt: skip
"""The number format that a part of a name says, about: GGUF's q4 mixes several."""


def _in_format(card: ModelCard, served: str, short: str) -> tuple[ModelCard, str | None]:
    """The card with the weights of the format that a served name tells, and the doubt about it."""
    told = next((NAMED[part] for part in short.split("-") if part in NAMED), None)
    if told is None or told in card.weights.values():
        return card, f"{served} is taken for {card.name}; its weights may have another number format"
    groups: tuple[Group, ...] = ("experts", "attention", "mlp")
    other = card.model_copy(update={"weights": dict.fromkeys(groups, told)})
    return other, f"{served} is taken for {card.name} with weights in {told}, as its name says"


def _architecture(name: str) -> str:
    """The parts of a plain name that tell the architecture: not those of formats, dates and GGUF's types."""
    parts = (part for part in name.split("-") if part not in FORMATS | VARIANTS)
    return "-".join(part for part in parts if not re.fullmatch(r"i?q[2-8]|[01kms]|xl|\d{4}", part))


def get_card(name: str) -> tuple[ModelCard, str | None]:
    """As `find_card`. Raises UsageError with the names that are near."""
    found = find_card(name)
    if found is not None:
        return found
    from difflib import get_close_matches

    near = get_close_matches(plain(name), {plain(known): known for known in cards()}, n=1, cutoff=0.5)
    hint = f"did you mean {next(k for k in cards() if plain(k) == near[0])}? " if near else ""
    raise UsageError(
        f"there is no card of a model {name!r}",
        f"{hint}`oss-eval models` lists them; --from config.json makes one from a Hugging Face config",
    )
