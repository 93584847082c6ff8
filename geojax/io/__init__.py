"""What a run reads and writes: only the experiment binaries use this package."""
