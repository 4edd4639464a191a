def edit_distance(reference, hypothesis):
    row = list(range(len(hypothesis) + 1))
    for i, said in enumerate(reference, start=1):
        row[0] = i
        for j, heard in enumerate(hypothesis, start=1):
            row[j] = min(row[j] + 1, row[j - 1] + 1, row[j - 1] + (said != heard))
    return row[-1]
