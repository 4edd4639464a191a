# Threads with the smallest stacks, which the limit of memory would let by the ten thousand.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    attributes, thread = ctypes.create_string_buffer(64), ctypes.c_ulong()
    LIBC.pthread_attr_init(attributes)
    LIBC.pthread_attr_setstacksize(attributes, ctypes.c_size_t(16384))
    count = 0
    while count < 20000 and LIBC.pthread_create(ctypes.byref(thread), attributes, LIBC.pause, None) == 0:
        count += 1
    return [f"{count} threads"] if count > 800 or not count else []
