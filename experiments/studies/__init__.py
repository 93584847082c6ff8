"""What the study binaries measure and draw."""
