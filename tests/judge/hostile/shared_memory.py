# Memory that outlives the process or is no part of its limit: memfd, System V, POSIX.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = blocked("memfd_create", (319, 279), b"x", 0) + blocked("memfd_secret", (447, 447), 0)
    got += blocked("shmget", (29, 194), 0, 4096, 0o1600) + blocked("semget", (64, 190), 0, 1, 0o1600)
    got += blocked("msgget", (68, 186), 0, 0o1600) + blocked("mq_open", (240, 180), b"x", 0o102, 0o600, 0)
    got += tried("shm", lambda: open("/dev/shm/bitwright", "w"))
    got += tried("O_TMPFILE", lambda: os.open("/", os.O_TMPFILE | os.O_RDWR))
    return got + tried(
        "multiprocessing", lambda: __import__("_posixshmem").shm_open("/bitwright", os.O_CREAT | os.O_RDWR)
    )
