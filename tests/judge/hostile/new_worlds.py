# New namespaces, mounts and roots.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = []
    for flag in (0x10000000, 0x20000, 0x40000000, 0x8000000, 0x20000000, 0x2000000, 0x4000000, 0x80, 0x400):
        got += blocked(f"unshare {flag:x}", (272, 97), flag)
    got += (
        blocked("setns", (308, 268), 0, 0)
        + blocked("chroot", (161, 51), b"/")
        + blocked("pivot_root", (155, 41), b"/", b"/")
    )
    got += blocked("mount", (165, 40), b"none", b"/", b"tmpfs", 0, 0) + blocked("umount2", (166, 39), b"/", 2)
    got += blocked("open_tree", (428, 428), -100, b"/", 1) + blocked("fsopen", (430, 430), b"tmpfs", 0)
    got += blocked("move_mount", (429, 429), -100, b"/", -100, b"/", 0) + blocked(
        "mount_setattr", (442, 442), -100, b"/", 0, 0, 0
    )
    return (
        got
        + blocked("name_to_handle_at", (303, 264), -100, b"/", 0, 0, 0)
        + blocked("open_by_handle_at", (304, 265), -100, 0, 0)
    )
