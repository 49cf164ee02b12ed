"""How a budget is spent on one problem: a file a strategy, and the searches that they share.

Read ``base`` first: the contract, and ``OrderedSearch``, which keeps outcomes in order. Then read
``sample`` and ``vote``, the simplest search and its strategy. ``drive`` does the I/O of them all.

A new strategy takes the nearest base:

- independent samples and a selection: ``sample.SampleSearch``; each of them asked about once, by a
  verifier or a judge: ``scored.FollowedSearch``;
- chains that do not wait for one another: ``chains.ChainSearch``; samples written in several
  pieces: ``chains.SampleChains``;
- one tree, grown node by node: ``tree.TreeSearch``;
- paths side by side, step by step: a ``levels_rule.Rule`` for ``levels.LevelSearch``. The files
  ``levels*`` are one machine: the search, its lanes, their nodes, their guesses, its options;
- anything else whose outcomes take effect in one order: ``base.OrderedSearch``.
"""
