"""Records → training examples: graded samples, rollouts, step labels, revision pairs."""
