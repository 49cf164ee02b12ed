r"""Where a solution's answer stands: ``\boxed{…}``, ``#### …``, "the answer is …".

Every scan is linear in the text, whatever the text is: no pattern here can backtrack over more
than a bounded window.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

from mull.grades import Extraction, Unanswered
from mull.tasks.maths.normal import MAX_DIGITS, number_text, read_number, refusal, strip_delimiters

SPAN: Final = 4000
"""Characters read after a marker."""
WINDOW: Final = 4000
"""Characters at the end of a text in which an unmarked answer is looked for."""

_BOX = re.compile(r"\\f?boxed\s{0,4}")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_MARKER = re.compile(
    r"\banswer[^\S\n]{0,3}\*{0,2}[^\S\n]{0,3}"
    r"(?::|=|is\b|was\b|would[^\S\n]be\b|should[^\S\n]be\b|must[^\S\n]be\b)[\s:*]{0,8}"
    r"|^[^\S\n]{0,4}\*{0,2}A:",
    re.IGNORECASE | re.MULTILINE,
)
_INLINE = re.compile(
    r"(?<!\\)\$\$?((?:[^$\\\n]|\\[^\n]){1,4000})\$\$?"
    r"|\\[(\[]((?:[^\n\\]|\\[^()\[\]\n]){1,4000})\\[)\]]"
)
_JOINT = re.compile(r"\s{0,4}(?:[,;]|[,;]?\s{0,4}(?:and|or)\b)\s{0,4}")
CALCULATION = re.compile(r"<<[^<>\n]*>>")
"""A calculation as GSM8K's solutions mark it."""

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_SIGNED = rf"(?:(?<![\w)])-)?(?:{_NUMBER})"
_SIGNED_NUMBER = re.compile(_SIGNED)
_CHAIN = re.compile(
    rf"{_SIGNED}(?:\s\d{{1,9}}/\d{{1,9}}(?!\d)|(?:\s?(?:[-+*/×÷=≈]|x(?=[\s\d]))\s?-?(?:{_NUMBER}))*)"
)
_MIXED = re.compile(r"(-?)(?<!\d)(\d+)\s(\d+)/(\d+)")
_SCALE = re.compile(r"\s?(hundred|thousand|million|billion|trillion|dozen)\b", re.IGNORECASE)
_SCALES: Final = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_HEDGE = re.compile(rf"[^\S\n]{{0,2}}[A-Za-z%]{{0,20}}[^\S\n]{{1,4}}or[^\S\n]{{1,4}}({_SIGNED})")
# What ends the clause of a number; an equation behind it is another one.
_CLAUSE = re.compile(
    r"[.,;:]\s|\(|\b(?:and|or|as|because|since|so|if|when|where|with|for)\b", re.IGNORECASE
)
_EXCLAMATION = re.compile(
    r"(\s[^\s!]{0,40}\d\*{0,2})!{1,3}(?=\*{0,2}(?:\s{0,4}$|\s{1,4}[A-Z]))", re.M
)
_LATEX_QUOTIENT = re.compile(r"\\[dtc]?frac\{(-?\d+)\}\{(-?\d+)\}")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox|textit)\{([^{}]*)\}")
# Stars between digits or brackets are a power, and are kept; elsewhere they are bold type.
_NOISE = re.compile(
    r"(?<![\d)])\*\*|\*\*(?![\d(])|__|\\\$|\$|\\!|\\[()\[\]]|\\(?:left|right)(?![A-Za-z])"
)
_THIN = re.compile(r"\\[,;: ]|~")
_POWER = re.compile(r"\s?(?:\^|!|\*\*)")
_TIMES = re.compile(r"\\(?:times|cdot)(?![A-Za-z])")


def visible(text: str) -> str:
    """The text after a reasoning model's thoughts; nothing when they never ended."""
    if text.lstrip().startswith("<think>"):
        return text.rpartition("</think>")[2] if "</think>" in text else ""
    # A chat template may have opened the thoughts already.
    return text.rpartition("</think>\n")[2]


def boxed(text: str) -> tuple[str | None, bool]:
    r"""The content of the last complete ``\boxed{…}``, and whether there was any ``\boxed`` at all.

    One pass over the braces for any number of boxes.

    >>> boxed(r"\boxed{1} so \boxed{\frac{1}{2}}")
    ('\\frac{1}{2}', True)
    """
    starts: list[int] = []
    bare: tuple[int, str] | None = None
    for match in _BOX.finditer(text):
        following = text[match.end() : match.end() + 1]
        if following == "{":
            starts.append(match.end())
        elif following and (following.isalnum() or match[0][-1] == " "):
            word = re.match(r"\S{1,64}", text[match.end() : match.end() + 64])
            bare = (match.end(), word[0]) if word else bare
    last: tuple[int, str] | None = None
    if starts:
        wanted = set(starts)
        stack: list[int] = []
        for match in _BRACE.finditer(text, starts[0]):
            if match[0] == "{":
                stack.append(match.start())
            elif match[0] == "}" and stack:
                start = stack.pop()
                # The last one to open: of a box in a box the inner one, without the wrapping.
                if start in wanted and (last is None or start > last[0]):
                    last = (start, text[start + 1 : match.start()])
    found = max((one for one in (last, bare) if one), default=None)
    return (found[1] if found else None), bool(starts or bare)


def hashes(text: str) -> str | None:
    """The rest of the line after the last ``####``."""
    at = text.rfind("####")
    return None if at < 0 else text[at + 4 : at + 4 + SPAN].lstrip("# ").split("\n", 1)[0].strip()


def marked(text: str) -> str | None:
    """The line after the last "the answer is", "Answer:" or "A:"."""
    last = None
    for match in _MARKER.finditer(text):
        last = match
    if last is None:
        return None
    span = text[last.end() : last.end() + SPAN].lstrip()
    return _without_bold(span.split("\n", 1)[0]) or None


def _without_bold(text: str) -> str:
    """The text without bold marks at its ends; a final stop behind them is kept."""
    text = text.strip(" \t*")
    stop = text[-1:] if text.endswith((".", ",")) else ""
    return text.removesuffix(stop).rstrip(" \t*") + stop


def inline(text: str) -> Iterator[str]:
    """Math set off by dollars or ``\\( \\)``, in order."""
    return (match[1] or match[2] for match in _INLINE.finditer(text))


def _of_sentence(span: str) -> str:
    """The answer in the first sentence of a marked line: its first math, else all of it.

    What a comma, "and" or "or" joins to that math is a part of the answer, without delimiters.
    """
    sentence = span.split(". ", 1)[0]
    maths = _INLINE.finditer(span)
    first = next(maths, None)
    if first is None or first.start() >= len(sentence):
        return _without_bold(sentence)
    answer, end = first[1] or first[2], first.end()
    for match in maths:
        joint = span[end : match.start()]
        if not _JOINT.fullmatch(joint):
            break
        answer, end = f"{answer}{joint}{match[1] or match[2]}", match.end()
    return answer


def find_answer(text: str) -> Extraction:
    r"""The answer of a solution in LaTeX or plain text, as its author wrote it, trimmed.

    >>> find_answer("Thus $x = 3$, and the answer is $\\sqrt{2}$.").answer
    '\\sqrt{2}'
    """
    text = visible(text)
    if not text.strip():
        return Extraction(None, Unanswered.EMPTY)
    content, has_box = boxed(text)
    span = content if content is not None else hashes(text)
    if span is None and (span := marked(text)) is not None:
        span = _of_sentence(span)
    if span is None and not has_box:
        span = _unmarked(text)
    answer = canonical(span) if span else ""
    if answer:
        return Extraction(answer)
    malformed = has_box or span is not None
    return Extraction(None, Unanswered.MALFORMED if malformed else Unanswered.NO_ANSWER)


def canonical(text: str) -> str:
    """Canonical text of an answer: numbers in one notation, the rest trimmed of delimiters."""
    number = read_number(text)
    if number is not None:
        return number_text(*number)
    return " ".join(strip_delimiters(text).split())


def _unmarked(text: str) -> str | None:
    lines = text[-WINDOW:].strip().split("\n")
    last = lines[-1]
    if found := [*inline(last)]:
        return found[-1]
    words = last.split()
    prose = any(len(word) > 1 and word.isalpha() for word in words)
    if len(lines) == 1 and len(last) <= 64 and len(words) <= 3:
        # "even" and "x + 1" are answers; "so 2" and "12 ways" have one.
        return last if not prose else _last_number(last) or last
    return _last_number(last)


def find_number(text: str) -> Extraction:
    r"""The number that a solution ends in: marked, or else the last one in the text.

    A LaTeX expression in a box is kept as it is; two numbers with "or" between are no answer; an
    exclamation mark at the end of a sentence is no factorial.

    >>> find_number("She sells 16 - 7 = 9 eggs.\nSo the answer is $18 a day.").answer
    '18'
    """
    text = visible(text)
    if not text.strip():
        return Extraction(None, Unanswered.EMPTY)
    content, has_box = boxed(text)
    text = _EXCLAMATION.sub(r"\1.", text)
    for span in (content, hashes(text), marked(text)):
        if span is None:
            continue
        number = read_number(span)
        if number is not None:
            return Extraction(number_text(*number))
        if refusal(span):
            return Extraction(canonical(span))  # for the grader to decline, in the open
        answer = number_in(span)
        if answer is not None:
            return _expression_or(answer)
        if span is content:
            return Extraction(None, Unanswered.MALFORMED)
    if has_box and content is None:
        return Extraction(None, Unanswered.MALFORMED)
    answer = _last_number(text)
    return Extraction(None, Unanswered.NO_ANSWER) if answer is None else _expression_or(answer)


def _last_number(text: str) -> str | None:
    tail = _clean(text[-WINDOW:])
    last = None
    for match in _SIGNED_NUMBER.finditer(tail):
        last = match
    if last is None:
        return None
    before, rest = tail[: last.start()], tail[last.end() :]
    if before.endswith(("^", "^{", "**")) or _POWER.match(rest):
        # Part of a power: the expression around it is the answer, not this number.
        start = max(map(before.rfind, " \t\n")) + 1
        return canonical(before[start:] + last[0] + (rest.split(None, 1) or [""])[0])
    return _scaled(last[0], rest)


def _expression_or(answer: str) -> Extraction:
    return Extraction(answer) if answer else Extraction(None, Unanswered.MALFORMED)


def number_in(span: str) -> str | None:
    r"""Canonical text of the first number of a span, with its scale and its last ``=``.

    ``None`` where there is no number; empty where two are offered; LaTeX that is no plain number
    comes back as it is.

    >>> number_in("3 * 6 = 18 dollars"), number_in("1.8 billion"), number_in("12 or 13")
    ('18', '1800000000', '')
    """
    text = _clean(span)
    match = _CHAIN.search(text)
    if match is None:
        return None
    match = _result(text, match)
    rest = text[match.end() :]
    if "\\" in text or _POWER.match(rest):
        return canonical(next(inline(span), span))
    if rest[:1] == ":" and rest[1:2].isdigit():
        return match[0] + rest[: len(rest) - len(rest[1:].lstrip("0123456789"))]
    chain = re.split(r"[=≈]", match[0])[-1].strip()
    hedge = _HEDGE.match(rest)
    answer = _scaled(chain, rest)
    if hedge and _scaled(hedge[1], "") != answer:
        return ""
    return answer


def _result(text: str, first: re.Match[str]) -> re.Match[str]:
    """What stands behind the last ``=`` in the clause of the first number, else that number."""
    clause = _CLAUSE.search(text, first.end())
    end = clause.start() if clause else len(text)
    equals = max(text.rfind(sign, first.end(), end) for sign in "=≈")
    return first if equals < 0 else _CHAIN.search(text, equals, end) or first


def _scaled(chain: str, rest: str) -> str:
    if mixed := _MIXED.fullmatch(chain):
        sign, whole, top, bottom = mixed[1], int(mixed[2]), int(mixed[3]), int(mixed[4])
        if bottom:
            value = whole + Fraction(top, bottom)
            return number_text(-value if sign else value, False)
    number = read_number(chain)
    if number is None:
        return chain if len(chain) <= MAX_DIGITS else ""
    scale = _SCALE.match(rest)
    value, decimal = number
    return number_text(value * _SCALES[scale[1].lower()] if scale else value, decimal)


def _clean(text: str) -> str:
    text = CALCULATION.sub("", text).replace("−", "-").replace("{,}", ",").replace(r"\%", "%")
    text = _TEXT.sub(r" \1", _LATEX_QUOTIENT.sub(r"\1/\2", text))
    text = _THIN.sub(" ", _NOISE.sub("", text))
    return _TIMES.sub("×", text)
