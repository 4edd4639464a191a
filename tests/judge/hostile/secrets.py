# Files of the system and of people.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got = []
    for path in (
        "/etc/shadow",
        "/etc/passwd",
        "/etc/hostname",
        "/etc/ssl/openssl.cnf",
        "/var/log/dpkg.log",
        "/dev/sda",
        "/dev/mem",
        "/dev/kmsg",
        "/dev/tty",
        "/dev/ptmx",
        "/dev/null",
        "/dev/zero",
        "/root/.bashrc",
        "/root/.ssh/id_rsa",
        "/bin/sh",
        "/usr/bin/env",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/boot",
        "/run/docker.sock",
    ):
        got += tried(path, lambda: open(path, "rb").read(1))
    for path in (
        "/",
        "/root",
        "/home",
        "/tmp",
        "/etc",
        "/var",
        "/usr",
        "/usr/bin",
        "/dev",
        "/sys",
        "/run",
        "..",
        "../../..",
    ):
        got += tried("list " + path, lambda: os.listdir(path))
    return got
