def stored_bytes(rows, columns, bits, group):
    return -(-rows * columns * bits // 8) + rows * 2 * -(-columns // group)
