def edit_distance(reference, hypothesis):
    above = list(range(len(hypothesis) + 1))
    for i, said in enumerate(reference, start=1):
        row = [i]
        for j, heard in enumerate(hypothesis, start=1):
            if said == heard:
                row.append(above[j - 1])
            else:
                row.append(min(above[j], row[j - 1]) + 1)
        above = row
    return above[-1]
