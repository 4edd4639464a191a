def stored_bytes(rows: int, columns: int, bits: int, group: int) -> int:
    """Bytes of a quantized matrix, scales included."""
    raise NotImplementedError
