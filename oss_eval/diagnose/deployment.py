"""Checks of a deployment: which model and GPU it is, whether they fit each other, and which settings suit them."""

from __future__ import annotations

from oss_eval.diagnose.check import PASS, WARN, Check
from oss_eval.endpoint.gpu_telemetry import gpu_names
from oss_eval.endpoint.identify import Identity
from oss_eval.endpoint.server import Server
from oss_eval.models.card import ModelCard, find_card
from oss_eval.models.machine import GIB, Machine, get_machine, machine_of
from oss_eval.models.runtime_advice import advice_for
from oss_eval.models.sizes import active_params, total_params, weight_bytes


def deployment_checks(server: Server, identity: Identity, gpu: str | None) -> list[Check]:
    """What is known of the model and of its GPU, and the advice for this engine with them.

    The GPU is the one named by `gpu`, else those of this machine, where the server runs on it. Raises UsageError
    for an unknown `gpu`.
    """
    card = find_card(server.model)
    if server.local is not None:
        machine = None  # it runs on this CPU, whatever else there is
    else:
        machine = get_machine(gpu) if gpu is not None else machine_of(gpu_names(server))
    found = [] if card is None else [_model(*card)]
    if machine is None:
        return found
    found.append(_machine(machine, None if card is None else card[0], named=gpu is not None))
    if card is not None and identity.name:
        found += [
            Check("runtime", PASS, row.advice, f"{row.reason} ({row.date:%Y-%m}, {row.sources[0]})")
            for row in advice_for(card[0], machine.card, identity.name, identity.version)
            if row.engines  # advice on the choice of an engine comes too late
        ]
    return found


def _model(card: ModelCard, doubt: str | None) -> Check:
    sizes = f"{total_params(card) / 1e9:.1f}B parameters, {active_params(card) / 1e9:.1f}B for a token"
    seen = f"{card.name}: {sizes}, {weight_bytes(card) / GIB:.1f} GiB of weights as published"
    return Check("model card", PASS if doubt is None else WARN, seen, doubt or "")


def _machine(machine: Machine, card: ModelCard | None, named: bool) -> Check:
    memory = machine.card.memory_bytes
    seen = machine.name + ("" if memory is None else f", {memory * machine.count / GIB:.1f} GiB")
    seen += " (--gpu)" if named else " (of this machine)"
    if card is None:
        return Check("GPU", PASS, seen)
    more = f"oss-eval models {card.name} --gpu {machine.name} tells what fits and how fast it can be"
    if memory is not None and weight_bytes(card) > memory * machine.count:
        return Check("GPU", WARN, f"{seen}: the weights as published are larger", more)
    return Check("GPU", PASS, seen, more)
