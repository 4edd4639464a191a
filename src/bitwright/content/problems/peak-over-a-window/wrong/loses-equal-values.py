from collections import deque


def peaks(values, width):
    answer = []
    queue = deque()
    for position, value in enumerate(values):
        while queue and queue[-1] <= value:
            queue.pop()
        queue.append(value)
        if position >= width and len(queue) > 1 and queue[0] == values[position - width]:
            queue.popleft()
        if position >= width - 1:
            answer.append(queue[0])
    return answer
