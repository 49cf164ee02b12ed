"""`mull arc solve`: puzzles in; a run, a valid submission, tables, a report and the score out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import Mull, refused, toml
from tests.tasks.arc.world import random_puzzle, solver, tiny_model

from mull.catalog import load_task
from mull.engines.simulated import Script, SimulatedEngine
from mull.metrics import mean_interval
from mull.report.tables import Table
from mull.runs import Records
from mull.tasks.arc import predictions
from mull.tasks.arc.grids import Puzzle, as_json, as_rows
from mull.tasks.arc.task import ArcTask

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.timeout(60)

VIEWS = 4
PUZZLES = [random_puzzle(seed, side=3, tests=1 + (seed == 3)) for seed in range(6)]
Given = Callable[..., SimulatedEngine]


def write(name: str, puzzles: list[Puzzle], **others: Any) -> str:
    Path(name).write_text(json.dumps({p.id: as_json(p) for p in puzzles} | others))
    return name


@pytest.fixture
def solved_by(monkeypatch: pytest.MonkeyPatch) -> Given:
    """Let every model be an engine that knows some of the puzzles' answers."""

    def given(context: int = 0, task: ArcTask | None = None) -> SimulatedEngine:
        engine = solver(PUZZLES, VIEWS, task, context)
        monkeypatch.setattr(sys.modules["mull.runs.run"], "load_policy", lambda *_, **__: engine)
        return engine

    return given


def solve(mull: Mull, puzzles: str, *options: object, out: str = "out") -> Any:
    return mull("arc", "solve", puzzles, "--model", "known", "--views", VIEWS, "--out", out,
                *options)  # fmt: skip


def read(name: str) -> Any:
    return json.loads(Path(name).read_text())


def test_a_run_a_submission_and_a_score(mull: Mull, solved_by: Given) -> None:
    solved_by()
    said = solve(mull, write("p.json", PUZZLES), "--no-report")
    assert said.code == 0, said.err
    scored = mull("arc", "score", "out/submission.json", "p.json", "--json").json
    (row,) = read("out/scores.json")
    assert row["score"][0] == pytest.approx(scored["score"]["value"])
    assert row["all_pairs"][0] == pytest.approx(scored["all_pairs"]["value"])
    shares = [scored["solved"][p.id] for p in PUZZLES]
    assert f"score {mean_interval(shares).percent()} %" in said.out
    assert {path.stem for path in Path("out/tables").glob("*.csv")} >= {
        "arc_steps", "arc_votes", "arc_n_scaling", "arc_sizes", "arc_failures",
    }  # fmt: skip


def test_files_are_those_of_the_field(mull: Mull, solved_by: Given) -> None:
    solved_by()
    solve(mull, write("p.json", PUZZLES), "--no-report", "--prompts")
    made = predictions.load("out/task_results.json")
    tests = sum(len(p.test) for p in PUZZLES)
    assert len(made) == tests * VIEWS
    grids = [(p.puzzle, p.index, p.grid) for p in predictions.load("out/predictions.json")]
    assert grids == [(p.puzzle, p.index, p.grid) for p in made]
    task = ArcTask()
    for puzzle in PUZZLES:
        for problem in task.problems_of(puzzle):
            own = [p for p in made if p.problem == problem.id]
            views = task.views(problem, VIEWS)
            assert [p.prompt for p in own] == [view.prompt.plain for view in views]
            for each, view in zip(own, views, strict=True):
                turn = view.key.split(".")[0]
                assert each.view.split(".")[0] == turn or "order" in turn
    # Voting them again gives the same attempts: the strategy's selection is the vote.
    mull("arc", "vote", "out/task_results.json", "--puzzles", "p.json", "--out", "again.json")
    assert read("again.json") == read("out/submission.json")


def test_it_resumes_and_comes_to_the_same(mull: Mull, solved_by: Given) -> None:
    engine = solved_by()
    write("p.json", PUZZLES)
    first = solve(mull, "p.json", "--no-report")
    files = {p: p.read_bytes() for p in Path("out").rglob("*.json")}
    made = engine.stats.generated
    again = solve(mull, "p.json", "--no-report")
    assert (again.code, again.out) == (first.code, first.out)
    assert engine.stats.generated == made, "what is committed is not asked again"
    assert {p: p.read_bytes() for p in Path("out").rglob("*.json")} == files
    changed = solve(mull, "p.json", "--views", VIEWS + 1)
    assert changed.code == 2
    assert "another config" in changed.err


def test_bad_puzzles_are_named_and_the_rest_goes_on(
    mull: Mull, solved_by: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the run, and in every report that is made of it later."""
    solved_by()
    pair = {"input": [[1]], "output": [[2]]}
    bad = {
        "ragged": {"train": [{"input": [[1, 2], [3]], "output": [[1]]}], "test": [pair]},
        "large": {"train": [pair], "test": [{"input": [[0] * 31] * 31}]},
        "ten": {"train": [{"input": [[1]], "output": [[10]]}], "test": [pair]},
        "untested": {"train": [pair], "test": []},
    }
    said = solve(mull, write("p.json", PUZZLES, **bad), "--no-report")
    assert said.code == 3
    for line in (
        "ragged: train 0 input: rows of 2 and 1 cells",
        "large: test 0 input: 31x31 cells",
        "ten: train 0 output: expected colours 0..9, not 10",
        "untested: expected a list of test pairs",
    ):
        assert f"mull: p.json: {line}" in said.err
    assert set(read("out/submission.json")) == {p.id for p in PUZZLES}
    assert "ragged" in Path("out/tables/arc_left_out.md").read_text()
    given: list[Table] = []

    def written(runs: object, out: Path, *, more: Sequence[Table]) -> Path:
        given.extend(more)
        return out / "report.html"

    monkeypatch.setattr(sys.modules["mull.cli.report"], "write_report", written)
    assert mull("report", "out").code == 0
    told = [f"p.json: {name}: " for name in bad]
    assert all(str(row[0]).startswith(why) for row, why in zip(given[0].rows, told, strict=True))


def test_puzzles_beyond_the_context_count_as_failures(mull: Mull, solved_by: Given) -> None:
    def least(puzzle: Puzzle) -> int:
        problem = next(ArcTask().problems_of(puzzle))
        return min(len(view.prompt.plain) for view in ArcTask().views(problem, VIEWS))

    longest = max(PUZZLES, key=least)  # no view of it fits
    size = least(longest)
    solved_by(context=size)
    said = solve(mull, write("p.json", PUZZLES), "--no-report")
    assert said.code == 3
    assert f"do not fit the model's context and count as failed: {longest.id}/0" in said.err
    assert read("out/submission.json")[longest.id][0] == {
        "attempt_1": [[0]], "attempt_2": [[0]],
    }  # fmt: skip
    assert f"{len(PUZZLES)} puzzles" in said.out
    assert read("out/scores.json")[0]["scored"] == len(PUZZLES)
    assert "too_long" in Path("out/tables/arc_failures.md").read_text()
    fitted = solve(mull, "p.json", "--no-report", "--characters", size // 2, out="fitted")
    assert "do not fit" not in fitted.err


def test_without_solutions_there_is_a_submission_and_no_score(mull: Mull, solved_by: Given) -> None:
    solved_by()
    blind = {
        p.id: {**as_json(p), "test": [{"input": as_rows(pair.input)} for pair in p.test]}
        for p in PUZZLES
    }
    Path("p.json").write_text(json.dumps(blind))
    said = solve(mull, "p.json", "--no-report")
    assert said.code == 0
    assert "no solutions are known, so there is no score" in said.out
    assert set(read("out/submission.json")) == {p.id for p in PUZZLES}


def test_a_limit_takes_the_first_puzzles(mull: Mull, solved_by: Given) -> None:
    solved_by()
    solve(mull, write("p.json", PUZZLES), "--no-report", "--limit", 2)
    assert list(read("out/submission.json")) == [p.id for p in PUZZLES[:2]]


def test_several_temperatures_are_a_sweep(mull: Mull, solved_by: Given) -> None:
    solved_by()
    said = solve(mull, write("p.json", PUZZLES), "--no-report", "--temperature", 0,
                 "--temperature", 0.5, "--strategy", "greedy", "--strategy", "airv")  # fmt: skip
    assert said.code == 0, said.err
    assert "By temperature" in said.out
    assert len(list(Path("out/cells").iterdir())) == 3
    last = max(read("out/scores.json"), key=lambda row: row["temperature"] or 0)
    assert last["strategy"] == f"airv(n={VIEWS})"


def test_every_step_runs_on_a_model_in_this_process(mull: Mull, folder: Path) -> None:
    pytest.importorskip("torch")
    model = tiny_model(folder / "tiny", context=128)
    write("p.json", [random_puzzle(seed, side=2) for seed in range(2)])
    options = ("--views", 2, "--threshold", 0.5, "--experts", 2, "--out", "out", "--no-report")
    more = ("--compare", "--strategy", "ttft(steps=1, examples=2)")
    said = mull("arc", "solve", "p.json", "--model", model, *options, *more)
    assert said.code == 0, said.err
    assert [row["strategy"] for row in read("out/scores.json")] == [
        "greedy",
        "airv(n=2)",
        "airv(n=2, rank=views)",
        "airv(n=4, rank=views, threshold=0.5)",
        "ttft(n=2, steps=1, examples=2)",
    ]
    with Records("out") as records:
        assert records.config["verifiers"] == {"views": "views(views=2)"}
        assert isinstance(load_task(records.config["task"]), ArcTask)


def test_a_report_with_its_gallery(mull: Mull, solved_by: Given) -> None:
    solved_by()
    said = solve(mull, write("p.json", PUZZLES))
    assert "report: out/report/report.html" in said.out
    page = Path("out/report/report.html").read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert [p["id"] for p in data["puzzles"]] == [p.id for p in PUZZLES]
    assert 'id="gallery"' in page


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--compare", "--rank", "views"), "--compare runs every rank itself"),
        (("--rank", "prm"), "rank"),
        (("--threshold", "2"), "threshold"),
        (("--format", "runes"), "runes"),
        (("--strategy", "votes"), "unknown strategy 'votes'"),
        (("--temperature", "-1"), "temperature"),
        (("--characters", "0"), "characters must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(
    folder: Path, mull: Mull, options: tuple[str, ...], says: str
) -> None:
    write("p.json", PUZZLES)
    said = refused(folder, mull, "arc", "solve", "p.json", "--model", "simulated", *options)
    assert says in said.err


def test_a_file_without_puzzles_is_refused(folder: Path, mull: Mull) -> None:
    Path("p.json").write_text('{"x": {"train": []}}')
    said = refused(folder, mull, "arc", "solve", "p.json", "--model", "simulated")
    assert "x: expected a list of train pairs" in said.err
    said = refused(folder, mull, "arc", "solve", "gone.json", "--model", "simulated")
    assert "gone.json does not exist" in said.err


def test_views_may_leave_grids_lying_and_colours_alone(mull: Mull, solved_by: Given) -> None:
    solved_by(task=ArcTask(geometry=False, colours=False))
    solve(mull, write("p.json", PUZZLES), "--no-report", "--no-geometry", "--no-colours")
    assert Records("out").config["task"] == "arc(geometry=false, colours=false)"
    views = {each.view for each in predictions.read_task_results("out/task_results.json")}
    assert len(views) == 1  # the field's form tells turns and colours, no order


def test_a_judge_ranks_the_answers_of_views(
    mull: Mull, solved_by: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    solved_by()
    puzzles = write("p.json", PUZZLES)
    says = SimulatedEngine(Script(["No.\n[[wrong]]"]))
    monkeypatch.setattr(sys.modules["mull.catalog.equip"], "load_engine", lambda *_, **__: says)
    said = solve(mull, puzzles, "--rank", "verify", "--judge", "other", "--no-report")
    assert said.code == 0
    with Records("out") as records:
        assert records.config["engines"] == {"judge": "other"}
        assert records.config["strategies"] == ["airv(n=4, rank=verify)"]
    (head, *_) = read("out/scores.json")
    assert head["strategy"] == "airv(n=4, rank=verify)"
    solved_by()
    said = solve(mull, puzzles, "--judge", "other", out="elsewhere")
    assert said.code == 2
    assert "engine 'judge' is used by no strategy" in said.err


def test_a_run_of_a_config_names_bad_puzzles_and_goes_on(mull: Mull, folder: Path) -> None:
    """As arc solve does: exit code 3, and a table that every later report shows."""
    bad = {"ragged": {"train": [{"input": [[1, 2], [3]], "output": [[1]]}], "test": [{}]}}
    file = write("p.json", PUZZLES, **bad)
    asked = {"task": "arc", "file": file, "problems": None, "samples": None,
             "strategies": ["airv(n=2)"]}  # fmt: skip
    config = toml(folder / "run.toml", **asked)
    for again in ((), ("--dry-run",)):
        said = mull("run", config, "--out", "out", *again)
        assert said.code == 3
        assert "ragged: train 0 input: rows of 2 and 1 cells" in said.err
    with Records("out") as records:
        ids = [problem.id for problem in records.problems()]
    assert ids == [problem.id for p in PUZZLES for problem in ArcTask().problems_of(p)]
    assert "ragged" in Path("out/tables/arc_left_out.md").read_text()
    write("p.json", PUZZLES)
    assert mull("run", config, "--out", "out").code == 0
    assert not Path("out/tables/arc_left_out.md").exists()
    write("p.json", [], **bad)
    said = mull("run", config, "--out", "other")
    assert (said.code, Path("other").exists()) == (2, False)
    assert "ragged: train 0 input" in said.err


def test_batching_is_timed_on_the_puzzles_that_can_be_read(
    mull: Mull, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from mull.bench import arc
    from mull.bench.driver import Spread
    from mull.bench.engine import Batched

    timed: list[Puzzle] = []

    def batching(puzzles: Sequence[Puzzle], *_: object, **__: object) -> list[Batched]:
        timed.extend(puzzles)
        return [Batched("all together", "float32", Spread.of([1.0]), 1.0, 1)]

    monkeypatch.setattr(arc, "arc_batching", batching)
    write("p.json", PUZZLES, odd={"train": [], "test": []})
    said = mull("bench", "batching", "--puzzles", "p.json", "--model", "arc-m", "--json")
    assert said.code == 3
    assert "p.json: odd: expected a list of train pairs" in said.err
    assert timed == PUZZLES
    assert [row["mode"] for row in said.json] == ["all together"]


def test_options_of_the_task_and_the_engine_are_those_of_a_config(
    mull: Mull, solved_by: Given
) -> None:
    solved_by()
    form = "GridShapeEncoder(MinimalGridEncoder())"
    said = solve(mull, write("p.json", PUZZLES), "--no-report", "--strict", "--copies",
                 "--no-order", "--max-tokens", 5, "--slots", 3, "--device", "cpu", "--format",
                 form, "--layout", "long")  # fmt: skip
    assert said.code == 0, said.err
    with Records("out") as records:
        task, engine = load_task(records.config["task"]), records.config["engine"]
    assert task == ArcTask(format=form, layout="long", strict=True, copies=True, order=False,
                           max_tokens=5)  # fmt: skip
    assert engine == {"slots": 3, "device": "cpu"}


def test_what_a_card_says_holds_unless_the_command_line_says_otherwise(
    mull: Mull, solved_by: Given
) -> None:
    Path("known").mkdir()
    Path("known/card.json").write_text('{"task": "arc(geometry=false, max_tokens=4)"}')
    write("p.json", PUZZLES)
    for out, options, expected in (
        ("as-card", (), "arc(geometry=false, max_tokens=4)"),
        ("other", ("--geometry", "--no-colours"), "arc(colours=false, max_tokens=4)"),
    ):
        solved_by()
        assert solve(mull, "p.json", "--no-report", *options, out=out).code == 0
        with Records(out) as records:
            assert records.config["task"] == expected
