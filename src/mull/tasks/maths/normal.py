"""Normal forms of mathematical answers: cheap, linear in the text, and never evaluated.

``normal`` makes notational variants of LaTeX identical, ``read_number`` reads plain numbers
exactly, and ``refusal`` names the answers that no grader should be asked to evaluate.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

MAX_DIGITS: Final = 300
MAX_LENGTH: Final = 2000
MAX_DEPTH: Final = 40
MAX_WRAPS: Final = 8

_SPACE = re.compile(r"\\[,;:!> ]|~|\\q?quad(?![A-Za-z])|\s+")
_DELIMITER = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])")
_FRACTION_NAME = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|textit|mbox|operatorname|textrm)\{([^{}]*)\}")
_DEGREE = re.compile(r"\^\\circ|\^\{\\circ\}|\\degree|°")
_ONE_CHARACTER = re.compile(r"([\^_])\{(\w)\}")
_SHORT_FRACTION = re.compile(r"\\frac(\d)(\d)")
_LAST_SHORT = re.compile(r"\\frac(\d)\{(\d+)\}")
_RELATION = re.compile(r"\\(l|g|n)eq(?![A-Za-z])")

_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+")
_DECIMAL = re.compile(r"(\d*)(?:\.(\d*))?")
_QUOTIENT = re.compile(r"(?<!\d)(\d+)/(\d+)")
_LATEX_QUOTIENT = re.compile(r"(?<!\d)(\d*)\\frac\{(-?\d+)\}\{(-?\d+)\}")

_BIG_EXPONENT = re.compile(r"\^[{(]*-?\d{5}")
_NUMBER_TOWER = re.compile(r"\d[)}]*\^[{(]*\d+[)}]*\^")
_FLAT_TOWER = re.compile(r"\^(?:\d+|[A-Za-z])\^")
_AROUND = re.compile(r" ?([\^!{}()]) ?")
_BIG_FACTORIAL = re.compile(r"\d{5}!|![)}]*!")
_LONG_DIGITS = re.compile(rf"(?<!\d)\d{{{MAX_DIGITS + 1}}}")


def strip_delimiters(text: str) -> str:
    """The text without surrounding white space, math delimiters, bold marks and a final stop."""
    for _ in range(MAX_WRAPS):
        before = text
        text = text.strip()
        if text.endswith((".", ",", ";")) and not text.endswith((r"\,", r"\;")):
            text = text[:-1]
        for opening, closing in (
            ("$$", "$$"),
            ("$", "$"),
            (r"\(", r"\)"),
            (r"\[", r"\]"),
            ("**", "**"),
        ):
            if (
                text.startswith(opening)
                and text.endswith(closing)
                and len(text) >= len(opening) + len(closing)
            ):
                inner = text[len(opening) : len(text) - len(closing)]
                if opening not in inner:
                    text = inner
                    break
        if text == before:
            break
    return text


def normal(text: str) -> str:
    r"""A form in which notational variants are identical; for comparing, not for showing.

    >>> normal(r"\left(\dfrac12,\, 30^\circ\right)") == normal(r"( \frac{1}{2} , 30 )")
    True
    """
    text = strip_delimiters(text).replace("−", "-").replace(r"\$", "").replace("$", "")
    text = text.replace(r"\%", "%")
    text = _SPACE.sub("", _DELIMITER.sub("", text))
    text = _FRACTION_NAME.sub(r"\\frac", text)
    text = _RELATION.sub(r"\\\1e", text)
    text = _TEXT.sub(r"\1", text)
    text = _DEGREE.sub("", text)
    text = _ONE_CHARACTER.sub(r"\1\2", text)
    text = _LAST_SHORT.sub(r"\\frac{\1}{\2}", _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text))
    if len(text) == 3 and text[0] == "(" and text[2] == ")" and text[1].isalpha():
        return text[1]
    return text.casefold() if len(text) > 1 and text.isalpha() else text


def read_number(text: str) -> tuple[Fraction, bool] | None:
    r"""The exact value of a plain number and whether it was written as a decimal, else ``None``.

    Integers, thousands separators, decimals, quotients and mixed numbers; no units, no powers.

    >>> read_number("1,234.50"), read_number(r"-1\frac{1}{2}"), read_number("2^3")
    ((Fraction(2469, 2), True), (Fraction(-3, 2), False), None)
    """
    if len(text) > 4 * MAX_DIGITS:
        return None
    text = normal(text.replace("{,}", ","))
    if not text or len(text) > MAX_DIGITS:
        return None
    sign = -1 if text[0] == "-" else 1
    body = text[1:] if text[0] in "+-" else text
    if not body or not body.isascii():
        return None
    whole, point, decimals = body.partition(".")
    if _THOUSANDS.fullmatch(whole):
        body = whole.replace(",", "") + point + decimals
    if (match := _DECIMAL.fullmatch(body)) and (match[1] or match[2]):
        digits = match[2] or ""
        return sign * Fraction(int((match[1] or "0") + digits), 10 ** len(digits)), bool(digits)
    if (match := _QUOTIENT.fullmatch(body)) and int(match[2]):
        return sign * Fraction(int(match[1]), int(match[2])), False
    if (match := _LATEX_QUOTIENT.fullmatch(body)) and int(match[3]):
        part = Fraction(int(match[2]), int(match[3]))
        if match[1] and part < 0:
            return None
        return sign * (int(match[1] or 0) + part), False
    return None


def same_number(a: tuple[Fraction, bool], b: tuple[Fraction, bool]) -> bool:
    """Equality of two numbers: exact, and to six decimals where one is a decimal (1/3, 0.333333).

    Six is math-verify's rounding, so that the fast path and the full one agree.
    """
    return a[0] == b[0] or ((a[1] or b[1]) and round(a[0], 6) == round(b[0], 6))


def number_text(value: Fraction, decimal: bool) -> str:
    """Canonical text of a number: ``18``, ``2.5`` where it was a decimal, ``1/3`` otherwise.

    >>> number_text(Fraction(5, 2), True), number_text(Fraction(5, 2), False)
    ('2.5', '5/2')
    """
    if value.denominator == 1 or not decimal:
        return str(value)
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
    scaled = str(abs(value.numerator) * 10**digits // value.denominator).rjust(digits + 1, "0")
    return f"{'-' if value < 0 else ''}{scaled[:-digits]}.{scaled[-digits:]}"


def refusal(text: str) -> str | None:
    """Why no grader should be asked to evaluate this answer; ``None`` where it may be.

    Length, nesting, towers of powers, huge exponents, factorials and literals: the shapes whose
    evaluation does not end within any limit.  Linear, and cheap before the length is known.
    """
    if len(text) > MAX_LENGTH:
        return f"{len(text)} characters long, more than {MAX_LENGTH}"
    text = _AROUND.sub(r"\1", _SPACE.sub(" ", text).replace("**", "^"))
    if _depth(text) > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH}"
    for pattern, reason in (
        (_LONG_DIGITS, f"a number of more than {MAX_DIGITS} digits"),
        (_BIG_EXPONENT, "an exponent of five digits or more"),
        (_NUMBER_TOWER, "a tower of powers"),
        (_FLAT_TOWER, "a tower of powers"),
        (_BIG_FACTORIAL, "a factorial too large"),
    ):
        if pattern.search(text):
            return reason
    return "a tower of powers" if _tower(text) > 2 else None


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "})]" and depth:
            depth -= 1
    return deepest


def _tower(text: str) -> int:
    """How many exponents in braces stand in one another."""
    groups: list[bool] = []  # whether each open group is an exponent
    height = tallest = 0
    for index, character in enumerate(text):
        if character in "{([":
            groups.append(index > 0 and text[index - 1] == "^")
            height += groups[-1]
            tallest = max(tallest, height)
        elif character in "})]" and groups:
            height -= groups.pop()
    return tallest
