def stored_bytes(rows: int, columns: int, bits: int, group: int) -> int:
    """Bytes of a quantized matrix, scales included."""
    codes = -(-columns * bits // 8)
    scales = -(-columns // group)
    return rows * (codes + 2 * scales)
