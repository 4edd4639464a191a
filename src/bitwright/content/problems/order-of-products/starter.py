def fewest_multiplications(shape: list[int]) -> int:
    """The smallest number of multiplications for a chain; matrix i has shape[i] rows and shape[i + 1] columns."""
    raise NotImplementedError
