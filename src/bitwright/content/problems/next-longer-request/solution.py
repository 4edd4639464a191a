def next_longer(lengths: list[int]) -> list[int | None]:
    """For each place the position of the first later, larger entry, or None; unanswered places wait on a stack."""
    answer: list[int | None] = [None] * len(lengths)
    waiting: list[int] = []
    for position, length in enumerate(lengths):
        while waiting and lengths[waiting[-1]] < length:
            answer[waiting.pop()] = position
        waiting.append(position)
    return answer
