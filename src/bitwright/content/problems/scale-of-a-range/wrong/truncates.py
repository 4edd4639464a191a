def scale_and_zero(x):
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    if low == high:
        return 1.0, 0
    scale = (high - low) / 255
    return scale, int(-low / scale)
