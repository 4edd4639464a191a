def product_except_self(numbers):
    answer = []
    for number in numbers:
        product = 1
        for other in numbers:
            if other != number:
                product *= other
        answer.append(product)
    return answer
