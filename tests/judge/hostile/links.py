# Links, renames, new folders, other rights: nothing in the file system changes.
# ruff: noqa
# outcome: nothing
def attack(outside, parent):
    got, places = [], [outside[0], os.__file__, "/tmp/x", "/x", "/dev/shm/x", os.path.dirname(os.__file__) + "/x"]
    for path in places:
        got += tried("symlink", lambda: os.symlink("/etc", path + ".link")) + tried(
            "link", lambda: os.link(path, path + ".link")
        )
        got += tried("rename", lambda: os.rename(path, path + ".new")) + tried("remove", lambda: os.remove(path))
        got += tried("mkdir", lambda: os.mkdir(path + ".d")) + tried("mkfifo", lambda: os.mkfifo(path + ".p"))
        got += tried("mknod", lambda: os.mknod(path + ".n")) + tried("chmod", lambda: os.chmod(path, 0o777))
        got += tried("chown", lambda: os.chown(path, os.getuid(), -1)) + tried("utime", lambda: os.utime(path))
        got += tried("truncate", lambda: os.truncate(path, 0)) + tried(
            "xattr", lambda: os.setxattr(path, "user.x", b"x")
        )
        got += tried("rmdir", lambda: os.rmdir(os.path.dirname(path)))
    return got
