def pair_for_budget(sizes: list[int], budget: int) -> list[int] | None:
    """Positions of two entries whose sizes add up to the budget, or None."""
    raise NotImplementedError
