def product_except_self(numbers: list[int]) -> list[int]:
    """At each place the product of all other numbers, without division."""
    raise NotImplementedError
