# prctl: dumps, death signals, filters, capabilities, keepers.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = []
    for option in (1, 4, 8, 10, 14, 22, 23, 24, 26, 28, 29, 31, 33, 35, 36, 38, 41, 43, 45, 47, 53, 55, 62, 0x59616D61):
        got += blocked(f"prctl {option}", (157, 167), option, 1, 0, 0, 0)
    return got + blocked("capset", (126, 91), ctypes.create_string_buffer(8), ctypes.create_string_buffer(24))
