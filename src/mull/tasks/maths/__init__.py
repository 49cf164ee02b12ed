"""Mathematics: what a solution's answer is, and whether two answers mean the same."""
