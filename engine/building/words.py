"""Words of a Dockerfile: splitting them, quotes, and the substitution of variables. Pure.

`expand` gives one word, `expand_words` as many as the text has after substitution, `split` keeps quotes and
escapes for a later expansion. Rules as Docker's: in single quotes nothing is special, in double quotes the
escape character only before a quote, a dollar or itself. A variable that is not set is empty.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping

from engine.errors import InvalidParameter

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SPECIAL = "@*#?-$!0"
_MODIFIERS = ":+-?#%/"


def expand(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    return _Expansion(text, variables, escape).run()[0]


def expand_words(text: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    return _Expansion(text, variables, escape).run()[1]


def split(text: str, escape: str = "\\") -> list[str]:
    """Words at white space that is neither quoted nor escaped; quotes and escapes stay in them."""
    words: list[str] = []
    word, quote, position = "", "", 0
    while position < len(text):
        char = text[position]
        position += 1
        if not quote and char.isspace():
            if word:
                words.append(word)
            word = ""
            continue
        word += char
        if char == escape and quote != "'" and position < len(text):
            word += text[position]
            position += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
    return [*words, word] if word else words


class _Expansion:
    """One pass over a text. `_at` is the position of the next character."""

    def __init__(self, text: str, variables: Mapping[str, str], escape: str) -> None:
        self._text, self._variables, self._escape = text, variables, escape
        self._at = 0

    def run(self) -> tuple[str, list[str]]:
        whole, words = self._until("")
        return whole, words

    def _until(self, stop: str) -> tuple[str, list[str]]:
        """Everything up to an unquoted `stop` character, which is taken too."""
        whole = ""
        words: list[str] = []
        word, is_word = "", False
        while self._at < len(self._text):
            char = self._text[self._at]
            if stop and char == stop:
                self._at += 1
                break
            if char in "'\"":
                piece = self._single() if char == "'" else self._double()
                whole, word, is_word = whole + piece, word + piece, True
            elif char == "$":
                piece = self._dollar()
                whole += piece
                for letter in piece:  # an unquoted value is split at its white space
                    if not letter.isspace():
                        word, is_word = word + letter, True
                    elif is_word:
                        words, word, is_word = [*words, word], "", False
            else:
                self._at += 1
                escaped = char == self._escape
                if escaped:
                    if self._at == len(self._text):
                        break
                    char = self._text[self._at]
                    self._at += 1
                whole += char
                if char.isspace() and not escaped:
                    if is_word:
                        words.append(word)
                    word, is_word = "", False
                else:
                    word, is_word = word + char, True
        else:
            if stop:
                raise InvalidParameter(f"syntax error: missing '{stop}' in substitution: {self._text}")
        return whole, [*words, word] if is_word else words

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise InvalidParameter(
                f"unexpected end of statement while looking for matching single-quote: {self._text}"
            )
        piece, self._at = self._text[self._at + 1 : end], end + 1
        return piece

    def _double(self) -> str:
        piece = ""
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return piece
            if char == "$":
                piece += self._dollar()
                continue
            self._at += 1
            following = self._text[self._at : self._at + 1]
            if char == self._escape and following and following in f'"${self._escape}':
                char = following
                self._at += 1
            piece += char
        raise InvalidParameter(
            f"unexpected end of statement while looking for matching double-quote: {self._text}"
        )

    def _dollar(self) -> str:
        self._at += 1
        following = self._text[self._at : self._at + 1]
        if following == "{":
            self._at += 1
            return self._braced()
        name = self._name()
        return self._variables.get(name, "") if name else "$"

    def _name(self) -> str:
        match = _NAME.match(self._text, self._at)
        if match:
            name = match[0]
        elif self._text[self._at : self._at + 1].isdigit():
            name = re.match(r"\d+", self._text[self._at :])[0]  # type: ignore[index]
        else:
            first = self._text[self._at : self._at + 1]
            name = first if first and first in _SPECIAL else ""
        self._at += len(name)
        return name

    def _braced(self) -> str:
        name = self._name()
        operator = self._text[self._at : self._at + 1]
        if not name or not operator:
            raise InvalidParameter(f"syntax error: bad substitution: {self._text}")
        self._at += 1
        value = self._variables.get(name)
        if operator == "}":
            return value or ""
        if operator not in _MODIFIERS:
            raise InvalidParameter(f"unsupported modifier ({operator}) in substitution: {self._text}")
        if operator == "/":
            return self._replaced(value or "")
        if operator in "#%":
            return self._trimmed(value or "", operator)
        if operator == ":":
            operator = self._text[self._at : self._at + 1]
            self._at += 1
            if not operator or operator not in "+-?":
                raise InvalidParameter(f"unsupported modifier (:{operator}) in substitution: {self._text}")
            value = value or None
        word = self._until("}")[0]
        if operator == "+":
            return word if value is not None else ""
        if value is None and operator == "?":
            raise InvalidParameter(f"{name}: {word or 'is not allowed to be unset'}")
        return word if value is None else value

    def _trimmed(self, value: str, operator: str) -> str:
        longest = self._text[self._at : self._at + 1] == operator
        self._at += longest
        matches = _matcher(self._until("}")[0])
        lengths = range(len(value) + 1)
        for length in reversed(lengths) if longest else lengths:
            if operator == "#" and matches(value[:length]):
                return value[length:]
            if operator == "%" and matches(value[len(value) - length :]):
                return value[: len(value) - length]
        return value

    def _replaced(self, value: str) -> str:
        everywhere = self._text[self._at : self._at + 1] == "/"
        self._at += everywhere
        matches = _matcher(self._until("/")[0])
        replacement = self._until("}")[0]
        result, position = "", 0
        while position < len(value):
            ends = (end for end in range(len(value), position, -1) if matches(value[position:end]))
            end = next(ends, None)
            if end is None:
                result, position = result + value[position], position + 1
                continue
            result, position = result + replacement, end
            if not everywhere:
                break
        return result + value[position:]


def _matcher(pattern: str) -> Callable[[str], bool]:
    """`*` and `?` as in a shell; nothing else is special."""
    plain = pattern.replace("[", "[[]")
    form = re.compile(fnmatch.translate(plain))
    return lambda text: form.match(text) is not None
