"""Laws of the chat layouts: parts and blank lines where they belong, the answer begins as asked."""

from dataclasses import dataclass
from typing import get_args

import pytest

from mull.errors import ConfigError, InputError
from mull.tasks.arc.encoder_spec import parse_encoder
from mull.tasks.arc.grids import Grid, Pair, Puzzle, as_text
from mull.tasks.arc.prompts import Layout, answer, ask


@dataclass(frozen=True)
class Encoder:
    """A stand-in: plain rows, fenced or fenced with the shape."""

    opening: str = ""
    before: str = ""
    after: str = ""

    def to_text(self, grid: Grid) -> str:
        return f"{self.opening}{self.before}{as_text(grid)}{self.after}"


PLAIN = Encoder()
FENCED = Encoder("```grid", "\n", "\n```")
SHAPED = Encoder("```grid", " shape: 1x1\n", "\n```")
LAYOUTS = get_args(Layout)
PUZZLE = Puzzle(
    "p",
    tuple(Pair(((i,),), ((i + 1,),)) for i in range(3)),
    (Pair(((7,),), ((8,),)), Pair(((9,),))),
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_user_turn_has_the_published_layout(layout: Layout) -> None:
    system, user = ask(PUZZLE, 1, FENCED, layout).prompt.messages
    assert (system.role, user.role) == ("system", "user")
    words, examples = user.content.split("\n\n## Example 1\n\n")
    assert "\n\n" not in words.strip() and words == words.strip()
    g = [f"```grid\n{i}\n```" for i in range(10)]
    assert examples == (
        f"### Input\n\n{g[0]}\n\n### Output\n\n{g[1]}\n\n"
        f"## Example 2\n\n### Input\n\n{g[1]}\n\n### Output\n\n{g[2]}\n\n"
        f"## Example 3\n\n### Input\n\n{g[2]}\n\n### Output\n\n{g[3]}\n\n"
        f"## Test case\n\n### Input\n\n{g[9]}"
    )


def test_the_long_words_are_longer() -> None:
    short, long = (ask(PUZZLE, 0, PLAIN, layout).prompt.plain for layout in ("short", "long"))
    assert 2 * len(short) < len(long)
    assert len(short.split("## Example 1")[0].split()) < 40


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_test_output_is_never_shown(layout: Layout) -> None:
    hidden = Puzzle("p", PUZZLE.train, (Pair(((7,),)),))
    assert ask(PUZZLE, 0, PLAIN, layout) == ask(hidden, 0, PLAIN, layout)


@pytest.mark.parametrize(
    ("encoder", "begins"), [(PLAIN, ""), (FENCED, "```grid"), (SHAPED, "```grid")]
)
def test_the_assistant_turn_begins_as_the_answer_does(encoder: Encoder, begins: str) -> None:
    asked = ask(PUZZLE, 0, encoder)
    assert asked.prefill == f"### Output\n\n{begins}"
    assert asked.opening == begins
    whole = answer(((8,),), encoder)
    assert whole.startswith(asked.prefill)
    completion = whole.removeprefix(asked.prefill)
    assert asked.opening + completion == encoder.to_text(((8,),))


@pytest.mark.parametrize("index", [-1, 2])
def test_a_test_pair_that_is_not_there_is_refused(index: int) -> None:
    with pytest.raises(InputError, match=f"p: no test pair {index}; the puzzle has 2"):
        ask(PUZZLE, index, PLAIN)


def test_an_unknown_layout_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="expected one of short, long"):
        ask(PUZZLE, 0, PLAIN, "v0")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spec",
    [
        "MinimalGridEncoder()",
        "GridWithSeparationEncoder('|')",
        "GridCodeBlockEncoder(MinimalGridEncoder())",
        "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))",
    ],
)
def test_what_a_model_adds_to_the_prefilled_turn_is_read_with_the_opening(spec: str) -> None:
    encoder = parse_encoder(spec)
    asked, grid = ask(PUZZLE, 0, encoder), ((1, 2, 3), (4, 5, 6))
    completion = answer(grid, encoder).removeprefix(asked.prefill)
    assert encoder.to_grid(asked.opening + completion) == grid
