def edit_distance(reference: list[str], hypothesis: list[str]) -> int:
    """The fewest replacements, deletions and insertions that make both lists equal."""
    raise NotImplementedError
