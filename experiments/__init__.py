"""Binaries: flags, one visible loop, what is saved and printed."""
