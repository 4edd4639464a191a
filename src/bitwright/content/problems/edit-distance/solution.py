def edit_distance(reference: list[str], hypothesis: list[str]) -> int:
    """The fewest replacements, deletions and insertions that make both lists equal; the table is filled row by row."""
    above = list(range(len(hypothesis) + 1))
    for i, said in enumerate(reference, start=1):
        row = [i]
        for j, heard in enumerate(hypothesis, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (said != heard)))
        above = row
    return above[-1]
