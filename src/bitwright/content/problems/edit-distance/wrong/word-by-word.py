def edit_distance(reference, hypothesis):
    differing = sum(said != heard for said, heard in zip(reference, hypothesis, strict=False))
    return differing + abs(len(reference) - len(hypothesis))
