def fewest_stages(budget: int, widths: list[int]) -> int | None:
    """The smallest number of stages whose widths add up to exactly the budget, or None."""
    raise NotImplementedError
