from collections import deque


def peaks(values, width):
    answer = []
    queue = deque()
    for position, value in enumerate(values):
        if queue and values[queue[-1]] <= value:
            queue.pop()
        queue.append(position)
        if queue[0] <= position - width:
            queue.popleft()
        if position >= width - 1:
            answer.append(values[queue[0]])
    return answer
