def product_except_self(numbers):
    total = 1
    for number in numbers:
        total *= number
    return [total // number if number else 0 for number in numbers]
