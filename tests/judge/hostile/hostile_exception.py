# An exception that cannot be shown, named or ended.
# ruff: noqa
# outcome: RTE TLE
class Odd(type):
    def __getattribute__(cls, name):
        raise SystemExit(0)


class Rude(Exception, metaclass=Odd):
    def __str__(self):
        os.write(1, b"\0\xff")
        raise KeyboardInterrupt


def attack(outside, parent):
    raise Rude
