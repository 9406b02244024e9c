"""Runs: everything that decides a training run, the folder that keeps it, and what it costs."""
