def check(arguments, expected, yours):
    """None where `yours` is a pair of positions that fits, or rightly None; otherwise what is wrong."""
    sizes, budget = arguments
    if yours is None:
        return None if expected is None else "There is a pair that fits, and None was returned."
    if not isinstance(yours, list | tuple) or len(yours) != 2:
        return "The result must be a list of two positions, or None."
    if not all(type(position) is int and 0 <= position < len(sizes) for position in yours):
        return "Both must be positions in the list, counted from zero."
    first, second = yours
    if first == second:
        return "An entry cannot be paired with itself."
    total = sizes[first] + sizes[second]
    if total != budget:
        return f"The sizes at these positions add up to {total}, not to {budget}."
    return None
