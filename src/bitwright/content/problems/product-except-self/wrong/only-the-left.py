def product_except_self(numbers):
    answer = []
    left = 1
    for number in numbers:
        answer.append(left)
        left *= number
    return answer
