def product_except_self(numbers: list[int]) -> list[int]:
    """At each place the product of all other numbers: what stands left of it times what stands right of it."""
    answer = [1] * len(numbers)
    left = 1
    for i in range(len(numbers)):
        answer[i] = left
        left *= numbers[i]
    right = 1
    for i in reversed(range(len(numbers))):
        answer[i] *= right
        right *= numbers[i]
    return answer
