"""How long a test waits for what must come: no clock of a busy machine decides a test."""

from __future__ import annotations

PATIENCE = 20.0
"""Seconds: far longer than what is waited for takes, far shorter than what would hang without the
limit under test (sleeps of a minute, loops without an end)."""
