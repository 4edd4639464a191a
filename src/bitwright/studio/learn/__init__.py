"""The study plan and its lessons."""
