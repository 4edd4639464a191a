from math import prod


def product_except_self(numbers):
    return [prod(numbers[:i]) * prod(numbers[i + 1 :]) for i in range(len(numbers))]
