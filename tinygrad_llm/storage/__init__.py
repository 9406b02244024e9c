"""Storage: files that are never half-written, locks, and reads of bounded size."""
