from collections import deque


def peaks(values: list[int], width: int) -> list[int]:
    """The maximum of each window of `width` neighbouring values; a queue holds those that may still become one."""
    answer: list[int] = []
    queue: deque[int] = deque()
    for position, value in enumerate(values):
        while queue and values[queue[-1]] <= value:
            queue.pop()
        queue.append(position)
        if queue[0] == position - width:
            queue.popleft()
        if position >= width - 1:
            answer.append(values[queue[0]])
    return answer
