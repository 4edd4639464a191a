def longest_rise(scores):
    kept = []
    for score in scores:
        if not kept or score > kept[-1]:
            kept.append(score)
    return len(kept)
