def product_except_self(numbers):
    answer = []
    for i in range(len(numbers)):
        product = 1
        for j, other in enumerate(numbers):
            if j != i and other != 0:
                product *= other
        answer.append(product)
    return answer
