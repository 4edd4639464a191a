def correct_bias(w, wq, bias, x, mask):
    if not mask.any():
        return bias
    return bias + (w - wq) @ x[mask].mean(axis=0)
