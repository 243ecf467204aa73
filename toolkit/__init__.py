"""How directions are made, measured and published, in rooms by stage: see docs/architecture.md."""
