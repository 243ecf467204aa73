"""What uses the package and is not installed with it."""
