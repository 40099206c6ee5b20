"""The language that filters runs: `val/accuracy > 0.9 and model in (mlp, cnn) and not status == failed`.

A comparison is `KEY OPERATOR VALUE`, joined by `and`, `or`, `not` and parentheses (`and` binds tighter than `or`):

    ==  !=           as a number where both are numbers, as text otherwise (true, false and null are texts)
    <  <=  >  >=     of numbers; of texts by alphabet, so that `name > 20261101` is what was started since then
    ~                contains, upper and lower case alike
    in (a, b, c)     one of them

A key is status, reason, name, id, plan, tag or note, else a metric (val/accuracy), else a key of the configuration
(optimizer.lr, model; optim, data and reg are short names). Text needs quotes only where it holds spaces or one of
`()<>=!~,"'`. A run without the key matches no comparison, `!=` included; `not KEY == VALUE` is true of it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from dlx.config.errors import UserError
from dlx.runs.keys import canonical, lookup, text_of

if TYPE_CHECKING:
    from dlx.runs.catalog import Entry, Value

MAX_LENGTH = 10_000
MAX_DEPTH = 50
WORDS = ("and", "or", "not", "in")  # a key or a value of this name is quoted
_PART = re.compile(
    r"""(?P<space>\s+)|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<sign><=|>=|==|!=|[<>~=(),])"""
    r"""|(?P<word>[^\s()<>=!~,"']+)""",
    re.DOTALL,
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf")
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
OPERATORS = ("==", "!=", *_ORDER, "~", "in")


@dataclass(frozen=True)
class Literal:
    """What a key is compared with. quoted: it is text, whatever it looks like."""

    text: str
    quoted: bool = False

    @property
    def number(self) -> float | None:
        return None if self.quoted or not _NUMBER.fullmatch(self.text) else float(self.text)

    def __str__(self) -> str:
        return _quoted(self.text) if self.quoted else self.text


@dataclass(frozen=True)
class Compare:
    key: str
    operator: str
    values: tuple[Literal, ...]  # one, but for `in`

    def matches(self, entry: Entry) -> bool:
        found = lookup(entry, self.key)
        if self.operator == "!=":
            return bool(found) and not any(_equal(value, self.values[0]) for value in found)
        if self.operator in ("==", "in"):
            return any(_equal(value, literal) for value in found for literal in self.values)
        if self.operator == "~":
            part = self.values[0].text.casefold()
            return any(part in text_of(value).casefold() for value in found)
        return any(_ordered(value, self.operator, self.values[0]) for value in found)

    def __str__(self) -> str:
        values = ", ".join(map(str, self.values))
        return f"{_plain(self.key)} {self.operator} {f'({values})' if self.operator == 'in' else values}"


@dataclass(frozen=True)
class Not:
    part: Expression

    def matches(self, entry: Entry) -> bool:
        return not self.part.matches(entry)

    def __str__(self) -> str:
        return f"not ({self.part})" if isinstance(self.part, Joined) else f"not {self.part}"


@dataclass(frozen=True)
class Joined:
    """Two or more parts. word: and, or."""

    word: str
    parts: tuple[Expression, ...]

    def matches(self, entry: Entry) -> bool:
        found = (part.matches(entry) for part in self.parts)
        return all(found) if self.word == "and" else any(found)

    def __str__(self) -> str:
        is_and = self.word == "and"
        return f" {self.word} ".join(
            f"({part})" if is_and and isinstance(part, Joined) else str(part) for part in self.parts
        )


Expression = Compare | Not | Joined


def parse(text: str) -> Expression:
    """Raises UserError that says what was expected, and where in the text."""
    return _Parser(text).whole()


def comparisons(expression: Expression) -> list[Compare]:
    """All comparisons of an expression, in its order."""
    if isinstance(expression, Compare):
        return [expression]
    parts = (expression.part,) if isinstance(expression, Not) else expression.parts
    return [found for part in parts for found in comparisons(part)]


def keys_of(expression: Expression) -> list[str]:
    return [found.key for found in comparisons(expression)]


def check_orders(expression: Expression, entries: Collection[Entry]) -> None:
    """Raises UserError for an order of numbers and a text, such as `val/accuracy > 90%`, which no run could match."""
    for found in comparisons(expression):
        if found.operator in _ORDER and found.values[0].number is None:
            kinds = {type(value) for entry in entries for value in lookup(entry, found.key)}
            if kinds and kinds <= {int, float}:
                raise UserError(f"filter: {found}: {found.key} is a number, {found.values[0]} is none")


def _equal(value: Value, literal: Literal) -> bool:
    number = literal.number
    if number is not None and isinstance(value, (int, float)) and not isinstance(value, bool):
        return value == number
    return text_of(value) == literal.text


def _ordered(value: Value, sign: str, literal: Literal) -> bool:
    right = literal.text if isinstance(value, str) else literal.number
    if value is None or isinstance(value, bool) or right is None:
        return False
    return _ORDER[sign](value, right)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _plain(text: str) -> str:
    """Text as a bare word where it can be one."""
    match = _PART.fullmatch(text)
    return text if match and match.lastgroup == "word" and text not in WORDS else _quoted(text)


@dataclass(frozen=True)
class _Token:
    kind: str  # text, sign, word or end
    text: str
    position: int


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_LENGTH:
            raise UserError(f"a filter has at most {MAX_LENGTH:,} characters, this one has {len(text):,}")
        self.tokens: list[_Token] = []
        position = 0
        while position < len(text):
            match = _PART.match(text, position)
            if not match:
                self._fail("a quote that is closed" if text[position] in "\"'" else "a key or a comparison", position)
            if match.lastgroup != "space":
                self.tokens.append(_Token(str(match.lastgroup), match[0], position))
            position = match.end()
        self.tokens.append(_Token("end", "", len(text)))
        self.next = 0
        self.depth = 0

    def _fail(self, expected: str, position: int | None = None) -> NoReturn:
        position = self.tokens[self.next].position if position is None else position
        rest = self.text[position : position + 20]
        found = f"at character {position + 1}, before {rest!r}" if rest else "at the end"
        raise UserError(f"filter {self.text[:80]!r}: expected {expected} {found}")

    def _take(self, *texts: str) -> str | None:
        """The next token, where it is one of these signs or words."""
        token = self.tokens[self.next]
        if token.kind == "text" or token.text not in texts:
            return None
        self.next += 1
        return token.text

    def whole(self) -> Expression:
        found = self._any()
        if self.tokens[self.next].kind != "end":
            self._fail("and, or or the end")
        return found

    def _any(self) -> Expression:
        return self._joined(lambda: self._joined(self._one, "and"), "or")

    def _joined(self, read: Callable[[], Expression], word: str) -> Expression:
        """Parts that are joined by the same word, in parentheses too, are parts of the whole."""
        parts: list[Expression] = []
        while not parts or self._take(word):
            part = read()
            parts += part.parts if isinstance(part, Joined) and part.word == word else [part]
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _one(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._fail(f"at most {MAX_DEPTH} levels")
        found: Expression
        if self._take("not"):
            found = Not(self._one())
        elif self._take("("):
            found = self._any()
            if not self._take(")"):
                self._fail("a closing parenthesis")
        else:
            found = self._comparison()
        self.depth -= 1
        return found

    def _comparison(self) -> Compare:
        key = canonical(self._value("a key").text)
        sign = self._take(*OPERATORS, "=")
        if sign is None:
            self._fail(f"one of {' '.join(OPERATORS)} after {key}")
        if sign != "in":
            return Compare(key, "==" if sign == "=" else sign, (self._value(f"a value after {sign}"),))
        if not self._take("("):
            self._fail("values in parentheses after in")
        values = [self._value("a value")]
        while self._take(","):
            values.append(self._value("a value"))
        if not self._take(")"):
            self._fail("a comma or a closing parenthesis")
        return Compare(key, "in", tuple(values))

    def _value(self, expected: str) -> Literal:
        token = self.tokens[self.next]
        if token.kind not in ("text", "word") or (token.kind == "word" and token.text in WORDS):
            self._fail(expected)
        self.next += 1
        if token.kind == "word":
            return Literal(token.text)
        text = re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
        # Quotes that change nothing are not kept, so that equal filters are equal.
        return Literal(text, quoted=_plain(text) != text or _NUMBER.fullmatch(text) is not None)
