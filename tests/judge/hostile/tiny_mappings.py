# Mappings of a page with other rights each, to fill the kernel's books.
# ruff: noqa
# outcome: nothing
# cpu: 2
def attack(outside, parent):
    LIBC.mmap.restype = ctypes.c_void_p
    count = 0
    while count < 200_000 and LIBC.mmap(
        None, ctypes.c_size_t(4096), 1 + count % 2 * 2, 0x22, -1, ctypes.c_long(0)
    ) not in (None, 2**64 - 1):
        count += 1
    return [f"{count} mappings"] if count > 100_000 else []
