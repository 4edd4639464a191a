def pair_for_budget(sizes: list[int], budget: int) -> list[int] | None:
    """Positions of two entries whose sizes add up to the budget, or None; earlier sizes are looked up."""
    seen: dict[int, int] = {}
    for position, size in enumerate(sizes):
        missing = budget - size
        if missing in seen:
            return [seen[missing], position]
        seen[size] = position
    return None
