# Writes a little more than is allowed, and is gone before anybody notices.
# ruff: noqa
# outcome: OLE
# times: 10
def attack(outside, parent):
    os.write(1, b"x" * 65536)
    os.write(1, b"x" * 100)
    os._exit(0)
