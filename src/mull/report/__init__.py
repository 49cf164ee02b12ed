"""Records in; tables, plots and one self-contained HTML page out.

``data`` says what a report is made of, ``digest`` and ``curves`` make numbers of it, ``contents``
tables and sentences, ``plots`` figures, ``page`` the HTML, ``write`` the folder. matplotlib and
jinja2 are needed for drawing and for the page only.

``cells`` makes plain rows of finished cells, to be kept and set side by side over many runs by
``compare``; ``verdicts`` says what came out.
"""

from __future__ import annotations

from mull.report.console import summary
from mull.report.data import Cell, LedgerRow, ProblemResult, Run, Sample
from mull.report.load import Runs
from mull.report.tables import Table, markdown, safe_terminal, terminal, to_csv
from mull.report.write import study_all, write_report

__all__ = [
    "Cell",
    "LedgerRow",
    "ProblemResult",
    "Run",
    "Runs",
    "Sample",
    "Table",
    "markdown",
    "safe_terminal",
    "study_all",
    "summary",
    "terminal",
    "to_csv",
    "write_report",
]
