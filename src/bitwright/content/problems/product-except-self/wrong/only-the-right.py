def product_except_self(numbers):
    answer = [1] * len(numbers)
    for i in range(1, len(numbers)):
        answer[i] = answer[i - 1] * numbers[i - 1]
    right = 1
    for i in reversed(range(len(numbers))):
        answer[i] = right
        right *= numbers[i]
    return answer
