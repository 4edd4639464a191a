def fewest_stages(budget: int, widths: list[int]) -> int | None:
    """The smallest number of stages whose widths add up to exactly the budget, or None; every smaller budget first."""
    fewest: list[int | None] = [0]
    for bits in range(1, budget + 1):
        best = None
        for width in widths:
            before = fewest[bits - width] if width <= bits else None
            if before is not None and (best is None or before < best):
                best = before
        fewest.append(None if best is None else best + 1)
    return fewest[budget]
