def edit_distance(reference, hypothesis):
    table = [[0] * (len(hypothesis) + 1) for _ in range(len(reference) + 1)]
    for i, said in enumerate(reference, start=1):
        for j, heard in enumerate(hypothesis, start=1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (said != heard))
    return table[-1][-1]
