"""ARC: puzzles of coloured grids. Files → puzzles; a puzzle → a prompt; text → a grid; a grade.

``grids`` is what travels in this room; every other file takes grids and gives grids.
"""
