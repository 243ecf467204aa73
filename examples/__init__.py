"""Programs that use the package and are not installed with it."""
