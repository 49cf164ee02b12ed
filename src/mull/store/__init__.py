"""Records on disk: samples that are paid for once, results, and what a run needs to go on.

``Store`` writes, one process at a time; ``Reader`` reads beside it. What replay, the cache, runs
and reports read. See ``schema`` for the tables.
"""

from mull.store.keys import request_key, score_key
from mull.store.reader import Reader
from mull.store.rows import canonical, digest, plain, usage_of
from mull.store.store import Store

__all__ = [
    "Reader",
    "Store",
    "canonical",
    "digest",
    "plain",
    "request_key",
    "score_key",
    "usage_of",
]
