def product_except_self(numbers):
    answer = []
    for i in range(len(numbers)):
        product = 1
        for j in range(len(numbers)):
            if j != i:
                product *= numbers[j]
        answer.append(product)
    return answer
