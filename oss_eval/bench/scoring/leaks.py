"""The answer channel of a response: reasoning that leaked into it is removed before an answer is looked for."""

from __future__ import annotations

import re

_HARMONY_FINAL = re.compile(
    r"assistant(?:<\|channel\|>)?final(?:<\|message\|>)?"
    r"|<\|channel\|>final\s*(?:<\|constrain\|>\s*\w*\s*)?<\|message\|>"
)
_HARMONY_BARE = re.compile(r"\s*analysis(?=[A-Z])")  # what is left of the tags when they are not shown
_HARMONY_TAGS = re.compile(r"<\|(?:start|end|return|channel|message|constrain|call)\|>")

_TAGS = (
    ("<think>", "</think>"),  # DeepSeek R1, Qwen3 and most others
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("[think]", "[/think]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|start_thinking|>", "<|end_thinking|>"),  # Command A
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<longcat_think>", "</longcat_think>"),
)
"""Opening and closing tags of reasoning, in lower case, as the chat templates of these models write them."""


def final_text(response: str) -> tuple[str, bool]:
    """(the answer without leaked reasoning, whether any had leaked).

    Servers without a reasoning parser leave the reasoning in the content: between tags, or in Harmony channels
    (gpt-oss; https://cookbook.openai.com/articles/openai-harmony). Reasoning that never ends leaves no answer.
    """
    if "<|channel|>" in response or _HARMONY_BARE.match(response):
        finals = list(_HARMONY_FINAL.finditer(response))
        return (_HARMONY_TAGS.sub("", response[finals[-1].end() :]).strip() if finals else ""), True
    text, leaked = response, False
    for opening, closing in _TAGS:
        folded = text.lower() if opening.isascii() else text
        if len(folded) == len(text) and (opening in folded or closing in folded):
            text, leaked = _without(text, folded, opening, closing), True
    return text.strip(), leaked


def _without(text: str, folded: str, opening: str, closing: str) -> str:
    """The text without its reasoning between two tags, which are found in the same text in lower case."""
    kept: list[str] = []
    at = 0
    while (begin := folded.find(opening, at)) >= 0:
        end = folded.find(closing, begin + len(opening))
        if end < 0:  # begun and never ended
            kept.append(text[at:begin])
            return "".join(kept)
        kept.append(text[at:begin])
        at = end + len(closing)
    last = folded.rfind(closing, at)
    if last >= 0:  # the opening tag was part of the prompt
        return text[last + len(closing) :]
    kept.append(text[at:])
    return "".join(kept)
