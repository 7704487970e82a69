"""How a model wants to be spoken to.

A prompt is put together from tokens, not from text: what marks a turn is a control token that we insert, and a text
from outside is only ever tokenized as plain text. So nothing that a caption says can end its turn.
"""

from __future__ import annotations

from dataclasses import dataclass

from comfy_cpu_core.errors import InputError
from comfy_cpu_nodes.runtimes.llama.model import LlamaModel

__all__ = ["Chat", "chat_prompt"]


@dataclass(frozen=True)
class _Style:
    """A chat format. In the texts, what is in `controls` is a control token, everything else is plain text.

    Attributes:
        controls: must all be control tokens of the model, and the first be in its chat template.
        system, user, answer: what stands before each of the three.
    """

    controls: tuple[str, ...]
    system: tuple[str, ...]
    user: tuple[str, ...]
    answer: tuple[str, ...]


# The last part of each is plain text, which is tokenized together with what follows.
_LLAMA_3 = _Style(
    controls=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    system=("<|start_header_id|>", "system", "<|end_header_id|>", "\n\n"),
    user=("<|eot_id|>", "<|start_header_id|>", "user", "<|end_header_id|>", "\n\n"),
    answer=("<|eot_id|>", "<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"),
)
_CHATML = _Style(
    controls=("<|im_start|>", "<|im_end|>"),
    system=("<|im_start|>", "system\n"),
    user=("<|im_end|>", "\n", "<|im_start|>", "user\n"),
    answer=("<|im_end|>", "\n", "<|im_start|>", "assistant\n"),
)
_PLAIN = _Style(controls=(), system=("",), user=("\n\n",), answer=("\n\nAnswer:\n",))


class Chat:
    """The chat format of one model: that of Llama 3 or ChatML if its template is such, else plain paragraphs."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model
        self._style = _style(model)
        self._controls = {text: model.control_token(text) for text in self._style.controls}

    @property
    def lead(self) -> str:
        """The plain text that an answer follows on; tokenize it together with the answer."""
        return self._style.answer[-1]

    def opening(self, system: str, user: str) -> list[int]:
        """The tokens of a prompt up to where a text from outside begins.

        Args:
            system: what the model is to do.
            user: the start of the user's turn.
        """
        before = self._tokens(self._style.system, system)
        return [*self._model.start, *before, *self._tokens(self._style.user, user)]

    def closing(self, text: str, user: str) -> list[int]:
        """The tokens of a prompt from a text from outside on, to where the answer begins, without `lead`.

        Args:
            text: from outside.
            user: the end of the user's turn.

        Raises:
            InputError: the text cannot be written in UTF-8, or the tokenizer takes a part of it for a control token.
        """
        try:
            tokens = self._model.tokenize(text + user)
        except UnicodeEncodeError as error:
            raise InputError(f"the text has a character that is none: {error.reason}") from error
        if any(self._model.is_control(token) for token in tokens):
            raise InputError(
                f"the text holds what {self._model.path.name} takes for a control token",
                remedy="take what looks like <|…|> or </s> out of the text",
            )
        return [*tokens, *self._tokens(self._style.answer[:-1], "")]

    def _tokens(self, parts: tuple[str, ...], text: str) -> list[int]:
        """Control tokens and plain parts, the last of them joined with `text`."""
        tokens: list[int] = []
        plain = ""
        for part in [*parts, text]:
            control = self._controls.get(part)
            if control is None:
                plain += part
                continue
            tokens += [*self._model.tokenize(plain), control] if plain else [control]
            plain = ""
        return tokens + self._model.tokenize(plain) if plain else tokens


def _style(model: LlamaModel) -> _Style:
    template = model.metadata("tokenizer.chat_template") or ""
    for style in (_LLAMA_3, _CHATML):
        if style.controls[0] in template and all(model.control_token(text) is not None for text in style.controls):
            return style
    return _PLAIN


def chat_prompt(model: LlamaModel, system: str, user: str) -> list[int]:
    """The tokens of a whole prompt, up to where the answer begins.

    Raises:
        InputError: a text cannot be written in UTF-8, or holds what the tokenizer takes for a control token.
    """
    chat = Chat(model)
    return [*chat.opening(system, ""), *chat.closing(user, ""), *model.tokenize(chat.lead)]
