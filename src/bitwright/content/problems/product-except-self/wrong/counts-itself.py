def product_except_self(numbers):
    answer = [1] * len(numbers)
    left = 1
    for i in range(len(numbers)):
        left *= numbers[i]
        answer[i] = left
    right = 1
    for i in reversed(range(len(numbers))):
        answer[i] *= right
        right *= numbers[i]
    return answer
