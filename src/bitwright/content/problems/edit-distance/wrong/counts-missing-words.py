from collections import Counter


def edit_distance(reference, hypothesis):
    said, heard = Counter(reference), Counter(hypothesis)
    return max((said - heard).total(), (heard - said).total())
