"""Have a model fill in a form: every question from one pass over the text.

The prompt's constant beginning is remembered between calls. Behind it, one batch holds the text and then each
question's stem as a branch of its own; the branches do not see each other. What the model expects at the end of each
branch are the answers. A safe and an unsafe text cost the same, and no token is ever decoded by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comfy_cpu_core.errors import InputError, ModelError
from comfy_cpu_nodes.ops.forms import Answer, Form, weigh
from comfy_cpu_nodes.runtimes.llama.chat import Chat
from comfy_cpu_nodes.runtimes.llama.context import Context, Read
from comfy_cpu_nodes.runtimes.llama.library import runtime_name
from comfy_cpu_nodes.runtimes.llama.model import LlamaModel
from comfy_cpu_nodes.runtimes.llama.prefix import PrefixFile

__all__ = ["FormTokens", "fill_in", "form_tokens", "prepare"]

_CONTEXT = "form"


@dataclass(frozen=True)
class FormTokens:
    """A form in the tokens of one model.

    Attributes:
        form: which one.
        prefix: the prompt up to the text.
        trunk: what all answers begin with.
        branches: for each question the rest of its stem, at least one token.
        choices: for each question the token that each option begins with; they differ.
    """

    form: Form
    prefix: list[int]
    trunk: list[int]
    branches: list[list[int]]
    choices: list[list[int]]


def form_tokens(model: LlamaModel, forms: Sequence[Form]) -> FormTokens:
    """The first of several forms in which the first token of an option tells it from the others.

    An option's tokens are looked at in their place, not by themselves: tokenizers may join the option's first letters
    with the quotation mark before them, or with nothing, depending on what follows.

    Raises:
        ModelError: the model's tokenizer keeps them apart in none of the forms.
    """
    chat = Chat(model)
    for form in forms:
        stems, choices = [], []
        for question in form.questions:
            texts = [chat.lead + question.stem + option + question.end for option in question.options]
            answers = [model.tokenize(text) for text in texts]
            stem = _common(answers)
            stems.append(stem)
            choices.append([answer[len(stem)] for answer in answers if len(answer) > len(stem)])
        apart = all(len(set(c)) == len(q.options) for c, q in zip(choices, form.questions, strict=True))
        if apart and all(stems):
            # A branch needs a token of its own, because the answer is read at its end.
            trunk = _common(stems)[: min(map(len, stems)) - 1]
            branches = [stem[len(trunk) :] for stem in stems]
            return FormTokens(form, chat.opening(form.system, form.before), trunk, branches, choices)
    raise ModelError(
        f"{model.path.name}: its tokenizer does not tell {', '.join(forms[0].questions[0].options)} apart",
        remedy="use another language model",
    )


def fill_in(
    model: LlamaModel, tokens: FormTokens, text: str, *, n_ctx: int, folder: Path | None, threads: int = 0
) -> list[Answer]:
    """Ask all questions of a form about a text.

    Args:
        model: held exclusively.
        tokens: the form.
        text: as the form wants it, quoted.
        n_ctx: how many tokens prompt and answers may have.
        folder: where the state of the prompt's beginning is kept between processes; None for nowhere.
        threads: how many threads to use; 0 for what this process may use.

    Raises:
        InputError: the text is too long, or no text.
        ModelError: llama.cpp failed.
        Interrupted, DeadlineExceeded: the run should end.
    """
    closing = Chat(model).closing(text, tokens.form.after)
    start, shared = len(tokens.prefix), [*closing, *tokens.trunk]
    every = tuple(range(len(tokens.branches)))
    reads = [Read(token, start + place, every) for place, token in enumerate(shared)]
    for sequence, branch in enumerate(tokens.branches):
        for place, token in enumerate(branch, start + len(shared)):
            reads.append(Read(token, place, (sequence,), place == start + len(shared) + len(branch) - 1))
    needed = start + len(reads)
    allowed = min(n_ctx, model.trained_context or n_ctx)
    if needed > allowed:
        raise InputError(
            f"the text is too long: it has {len(closing)} tokens, of which {max(allowed - needed + len(closing), 0)} fit "
            f"into a context of {allowed} beside the questions",
            remedy="shorten the text, or raise n_ctx",
        )
    context = model.context(_CONTEXT, needed, sequences=len(every), threads=threads)
    try:
        _hold_prefix(model, context, tokens, folder)
        logits = context.read(reads)
        kept = [context.forget(sequence, start) for sequence in every]
    except BaseException:
        model.drop_context(_CONTEXT)
        raise
    if not all(kept):
        model.drop_context(_CONTEXT)
    return [weigh(row, [[token] for token in choices]) for row, choices in zip(logits, tokens.choices, strict=True)]


def prepare(model: LlamaModel, tokens: FormTokens, folder: Path) -> Path:
    """Read a form's constant beginning, and keep its state in a folder. Give the file back, which an image may carry.

    Raises:
        ModelError: it cannot be written.
    """
    file = _prefix_file(model, tokens, folder)
    context = model.context(_CONTEXT, len(tokens.prefix) + 1, sequences=len(tokens.branches))
    _hold_prefix(model, context, tokens, folder)
    if not file.path.is_file() and not file.store(context.save(0)):
        raise ModelError(f"the state of the prompt cannot be written to {folder}")
    return file.path


def _hold_prefix(model: LlamaModel, context: Context, tokens: FormTokens, folder: Path | None) -> None:
    """Have a context hold the prompt's beginning in all its sequences, and nothing else."""
    if context.tokens == tokens.prefix:
        return
    context.clear()
    others = range(1, len(tokens.branches))
    file = _prefix_file(model, tokens, folder) if folder is not None else None
    state = model.remembered.get(tuple(tokens.prefix)) or (file.load() if file is not None else None)
    if state is not None and context.restore(0, state) and context.length(0) == len(tokens.prefix):
        context.share(0, others)
    else:
        context.clear()
        every = (0, *others)
        context.read([Read(token, place, every) for place, token in enumerate(tokens.prefix)])
        state = context.save(0)
        if file is not None:
            file.store(state)
    model.remembered[tuple(tokens.prefix)] = state
    context.tokens = tokens.prefix


def _prefix_file(model: LlamaModel, tokens: FormTokens, folder: Path) -> PrefixFile:
    return PrefixFile.of(
        folder,
        f"{model.path.stem}-{tokens.form.name}",
        fingerprint=model.fingerprint,
        runtime=runtime_name(),
        tokens=tokens.prefix,
    )


def _common(sequences: Sequence[Sequence[int]]) -> list[int]:
    """The longest beginning that all sequences share."""
    shared = []
    for first, *others in zip(*sequences, strict=False):
        if any(other != first for other in others):
            break
        shared.append(first)
    return shared
