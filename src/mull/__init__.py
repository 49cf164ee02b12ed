"""Mull: test-time compute for language models."""
