"""What benches are made of: streams in integer codes, stalls, scoreboard, protocol and structure checks, runner."""

from __future__ import annotations
