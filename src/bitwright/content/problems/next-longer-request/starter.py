def next_longer(lengths: list[int]) -> list[int | None]:
    """For each place the position of the first later entry that is larger, or None."""
    raise NotImplementedError
