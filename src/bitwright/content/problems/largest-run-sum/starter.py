def largest_run(gains: list[int]) -> int:
    """The largest sum of one or more neighbouring gains."""
    raise NotImplementedError
